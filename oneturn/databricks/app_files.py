"""The files of a Databricks App that serves an agent: its code as it stands here, and what starts it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from oneturn.agent import Agent
from oneturn.config.files import CONFIG_VARIABLE
from oneturn.model_log import REQUIREMENTS, code_paths, requirements

_SECRET = re.compile(r"\{\{secrets/(?P<scope>[^/]+)/(?P<key>[^/}]+)\}\}")
_CONFIG = "oneturn.yaml"
_LEFT_OUT = {"__pycache__", ".DS_Store"}

_START = '''"""Serve the agent: MLflow's AgentServer at the port that Databricks Apps says."""

import os

import oneturn

oneturn.serve(oneturn.load_agent("agent.py"), host="0.0.0.0", port=int(os.environ["DATABRICKS_APP_PORT"]))
'''


def app_files(agent: Agent) -> dict[str, bytes]:
    """Each file by its path in the app: the agent, oneturn itself, the pinned requirements and the start.

    Raises:
        ProgramError: a folder that the agent declares isn't there.
    """
    texts = {
        "app.py": _START,
        "app.yaml": yaml.safe_dump(_manifest(agent), sort_keys=False),
        REQUIREMENTS: "\n".join(requirements(agent)) + "\n",
        _CONFIG: yaml.safe_dump(agent.config.to_model_config(), sort_keys=False),
        "agent.py": (agent.root / "agent.py").read_text(encoding="utf-8"),
    }
    found = {name: text.encode() for name, text in texts.items()}
    for path in code_paths(agent):
        found |= dict(_files(path))
    return found


def secrets_of(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Scope and key of each variable whose value is a secret's reference, by the variable's name."""
    matches = {name: _SECRET.fullmatch(value) for name, value in environment.items()}
    return {name: (match["scope"], match["key"]) for name, match in matches.items() if match is not None}


def resource_name(variable: str) -> str:
    """What an app calls the secret that an environment variable holds."""
    return variable.lower().replace("_", "-")


def _manifest(agent: Agent) -> dict[str, Any]:
    """The app's ``app.yaml``: Databricks puts a secret in at the start, from the app's resource of that name."""
    environment = agent.config.deploy.environment
    secrets = secrets_of(environment)
    variables = [{"name": CONFIG_VARIABLE, "value": _CONFIG}]
    for name, value in environment.items():
        given = {"valueFrom": resource_name(name)} if name in secrets else {"value": value}
        variables.append({"name": name, **given})
    return {"command": ["python", "app.py"], "env": variables}


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file():
        yield path.name, path.read_bytes()
        return
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path.parent)
        if file.is_file() and not _LEFT_OUT & set(inside.parts):
            yield inside.as_posix(), file.read_bytes()
