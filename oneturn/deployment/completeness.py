"""Check that a logged agent is complete: it carries the modules and files of the agent's folder that it needs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.utils.databricks_utils import get_databricks_env_vars

from oneturn.agent import Agent
from oneturn.config.loading import CONFIG_VARIABLE
from oneturn.core.secrets import redact
from oneturn.errors import ProgramError
from oneturn.lm.local.server import server_variables

_SCRIPT = Path(__file__).with_name("_load_elsewhere.py")
_TIMEOUT = 1800.0  # seconds; the LM may first have to be loaded
_FIX = "Add it to code_paths in agent.py."


def check_complete(agent: Agent, model_uri: str) -> None:
    """Load a logged model in a new process and another folder, and let it answer its example question.

    The agent's folder isn't importable there. The answer isn't traced.

    Raises:
        ProgramError: the model doesn't load or answer, or it needs a module or file of the agent's folder that
            ``code_paths`` doesn't carry.
    """
    with tempfile.TemporaryDirectory(prefix="oneturn-") as folder:
        model = mlflow.artifacts.download_artifacts(model_uri, dst_path=str(Path(folder) / "model"))
        result = Path(folder, "result.json")
        command = [sys.executable, str(_SCRIPT), model, str(agent.root.resolve()), str(result)]
        try:
            process = subprocess.run(  # noqa: S603 (our own script)
                command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=_TIMEOUT
            )
        except subprocess.TimeoutExpired as error:
            raise ProgramError(f"The logged model didn't answer its example question in {_TIMEOUT:g} s.") from error
        if not result.is_file():
            reason = redact((process.stderr.strip().splitlines() or ["no output"])[-1])
            raise ProgramError(f"The process that loads the logged model ended with {process.returncode}: {reason}")
        found = json.loads(result.read_text(encoding="utf-8"))
    missing = [f"the module {name}" for name in found["modules"]] + [f"the file {name}" for name in found["files"]]
    if missing:
        raise ProgramError(f"The logged model needs {', '.join(missing)}, which code_paths doesn't carry. {_FIX}")
    if found["error"] is not None:
        reason = " ".join(redact(found["error"].replace(model, "…")).split())
        raise ProgramError(f"The logged model fails in a clean process, outside {agent.root}: {reason}")


def _environment() -> dict[str, str]:
    """The environment of the process: that of this one, with its tracking server, credentials and embedded LM."""
    uri = mlflow.get_tracking_uri()
    variables = {name: value for name, value in os.environ.items() if name != CONFIG_VARIABLE}
    variables |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    variables |= server_variables()
    try:
        return {**variables, **get_databricks_env_vars(uri)}
    except mlflow.MlflowException:  # credentials of Databricks' command line: the process reads them itself
        return variables


def missing_modules(agent: Agent) -> list[str]:
    """The modules of the agent's folder that its code imports, in functions too, and that ``code_paths`` doesn't carry.

    Imports that only type checkers run, and those whose failure is handled, don't count.

    Returns:
        The module and the place of its first import, such as ``"helpers (agent.py, line 3)"``.
    """
    carried = {Path(path).stem for path in agent.logged_paths} | {"oneturn"}
    missing: dict[str, str] = {}
    for file in _carried_files(agent):
        for name, line in _imports(ast.parse(file.read_text(encoding="utf-8"))):
            top = name.partition(".")[0]
            if top not in carried and _is_module(agent.root, name):
                missing.setdefault(top, f"{top} ({file.relative_to(agent.root)}, line {line})")
    return list(missing.values())


def missing_files(agent: Agent) -> list[str]:
    """The files of the agent's folder that its code names in texts, and that ``code_paths`` doesn't carry."""
    carried = [(agent.root / path).resolve() for path in agent.logged_paths]
    missing: dict[Path, str] = {}
    for file in _carried_files(agent):
        for text, line in _texts(ast.parse(file.read_text(encoding="utf-8"))):
            for named in {file.parent / text, agent.root / text}:
                path = named.resolve()
                is_carried = any(path.is_relative_to(folder) for folder in carried)
                if not is_carried and path.is_relative_to(agent.root.resolve()) and path.is_file():
                    place = f"{path.relative_to(agent.root.resolve())} ({file.relative_to(agent.root)}, line {line})"
                    missing.setdefault(path, place)
    return list(missing.values())


def _carried_files(agent: Agent) -> Iterator[Path]:
    if (declaration := agent.root / "agent.py").is_file():  # an agent in a notebook has none
        yield declaration
    for path in agent.logged_paths:
        place = agent.root / path
        yield from [place] if place.suffix == ".py" else sorted(place.rglob("*.py"))


def _is_module(root: Path, name: str) -> bool:
    """Whether a folder has a module: a file or package, or the whole path in folders without ``__init__.py``, of which
    an installed package may have the first name, too."""
    places = root / name.partition(".")[0], root.joinpath(*name.split("."))
    return any(place.with_suffix(".py").is_file() or any(place.glob("*.py")) for place in places)


def _imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield str(node.module), node.lineno
    for child in ast.iter_child_nodes(node):
        if not (_is_optional(node) and child in getattr(node, "body", ())):
            yield from _imports(child)


def _is_optional(node: ast.AST) -> bool:
    """Whether a statement's body may be skipped: under ``TYPE_CHECKING``, or with a handler for its exceptions."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.Try) and any("Import" in ast.unparse(each) for each in node.handlers if each.type)


def _texts(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The texts that may be file names, without the names of configurations, which the model carries as settings."""
    reads = {id(text) for node in ast.walk(tree) if _reads_config(node) for text in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in reads:
            text = node.value
            if text.isprintable() and 0 < len(text) < 200 and "." in text:
                yield text, node.lineno


def _reads_config(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("AgentConfig.read")
