"""A Declarative Automation Bundle for ``databricks bundle deploy``, with development and production targets.

The bundle has a release job, which logs and registers the agent, promotes it if it is better than the champion, and
deploys it; and a Databricks App with the same agent. Each target has its own folder and configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from oneturn.agent import Agent
from oneturn.deployment.databricks.app_files import app_files, app_resources
from oneturn.deployment.databricks.apps import app_name
from oneturn.deployment.preflight import refuse_undeployable, refuse_unsigned_approvals
from oneturn.deployment.resources import scopes_of
from oneturn.errors import DeployError

_PRODUCTION = "prod"
_ENVIRONMENT = "oneturn"
_TRACES = "traces"
_TRACES_ID = f"${{resources.experiments.{_TRACES}.id}}"
"""The experiment is a resource of the bundle, so that the app may write to it; in development its name has a prefix."""
_RELEASE = '''"""Run a oneturn command in a folder, as a step of a release."""

import os
import sys

folder, *words = sys.argv[1:]
os.chdir(folder)
sys.path.insert(0, folder)

from oneturn.cli import app

if failed := app(words, standalone_mode=False):
    raise RuntimeError(f"oneturn {' '.join(words)} failed with exit code {failed}; see its output above.")
'''


def write_bundle(agents: Mapping[str, Agent], folder: Path) -> list[Path]:
    """Write a bundle of an agent to a folder; return the paths of its files.

    Args:
        agents: the agent by target, ``"dev"`` and ``"prod"``, each with the configuration of its target.
        folder: a new folder, or one of an earlier bundle, whose files are overwritten.

    Raises:
        DeployError: a configuration can't be deployed, or the folder has other files.
        ProgramError: a folder that the agent declares doesn't exist.
    """
    for agent in agents.values():
        refuse_undeployable(agent.config, app=True)
        refuse_unsigned_approvals(agent)
    if folder.exists() and any(folder.iterdir()) and not (folder / "databricks.yml").is_file():
        raise DeployError(f"{folder} has files that aren't a bundle; name another folder.")
    texts = {Path("databricks.yml"): yaml.safe_dump(bundle(agents), sort_keys=False).encode()}
    for target, agent in agents.items():
        files = app_files(agent) | {"release.py": _RELEASE.encode()}
        texts |= {Path(target, path): content for path, content in files.items()}
    for path, content in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return sorted(texts)


def bundle(agents: Mapping[str, Agent]) -> dict[str, Any]:
    """The bundle's ``databricks.yml``."""
    name = app_name(next(iter(agents.values())))
    return {
        "bundle": {"name": name},
        "targets": {target: _target(target, agent, name) for target, agent in agents.items()},
    }


def _target(target: str, agent: Agent, name: str) -> dict[str, Any]:
    production = target == _PRODUCTION
    entry: dict[str, Any] = {"mode": "production" if production else "development"}
    if production:
        entry["workspace"] = {"root_path": "/Workspace/Shared/.bundle/${bundle.name}/${bundle.target}"}
    else:
        entry["default"] = True
    entry["resources"] = {
        "experiments": {_TRACES: {"name": agent.config.mlflow.experiment}},
        "jobs": {"release": _job(target, agent, name)},
        "apps": {"agent": _app(target, agent, name)},
    }
    return entry


def _job(target: str, agent: Agent, name: str) -> dict[str, Any]:
    steps = {
        "log": ["log", "--register", "--alias", "challenger"],
        "promote": ["promote"],
        "deploy": ["deploy", "serving"],
    }
    tasks: list[dict[str, Any]] = []
    for key, command in steps.items():
        task: dict[str, Any] = {"task_key": key, "environment_key": _ENVIRONMENT}
        if tasks:
            task["depends_on"] = [{"task_key": tasks[-1]["task_key"]}]
        folder = f"${{workspace.file_path}}/{target}"
        parameters = [folder, *command, "--config", "oneturn.yaml"]
        task["spark_python_task"] = {"python_file": f"./{target}/release.py", "parameters": parameters}
        tasks.append(task)
    pinned = app_files(agent)["requirements.txt"].decode().split()
    spec = {"environment_version": "4", "dependencies": pinned}
    return {
        "name": f"Release {name}",
        "max_concurrent_runs": 1,
        "queue": {"enabled": True},
        "environments": [{"environment_key": _ENVIRONMENT, "spec": spec}],
        "tasks": tasks,
    }


def _app(target: str, agent: Agent, name: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "name": name if target == _PRODUCTION else f"{name}-{target}",
        "source_code_path": f"./{target}",
        "resources": [resource.as_dict() for resource in app_resources(agent.config, _TRACES_ID)],
    }
    if scopes := scopes_of(agent.config):
        settings["user_api_scopes"] = scopes
    return settings
