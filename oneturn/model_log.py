"""Log an agent as an MLflow model: its code, its configuration, its compiled program, its pinned requirements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import mlflow
from packaging.requirements import Requirement

from oneturn.agent import Agent
from oneturn.compiled import check_secrets, drift, read_manifest
from oneturn.errors import ProgramError
from oneturn.tracking import use_tracking

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class LoggedAgent:
    """A logged agent: where it is, and the run that holds its parameters, scores and compiled program."""

    model_uri: str
    run_id: str
    registered_version: str | None


def log(agent: Agent, *, register: bool = False) -> LoggedAgent:
    """Log ``agent`` as a models-from-code MLflow model.

    MLflow asks the agent its example question while it logs, so the LM must be able to answer.

    Args:
        agent: what to log.
        register: whether to register the model under the configured name, as a new version.

    Raises:
        ProgramError: a folder that the agent declares isn't there; or its compiled program holds what looks like a
            secret, or was compiled for another program.
    """
    settings = agent.config.mlflow
    if agent.config.compiled is not None:
        check_secrets(agent.compiled_path)
    agent.program()
    code_paths, pinned = [str(path) for path in _code_paths(agent)], requirements(agent)
    use_tracking(settings)
    with mlflow.start_run(run_name=agent.name) as run:
        _log_origin(agent)
        info = mlflow.pyfunc.log_model(
            name=agent.name,
            python_model=str(agent.root / "agent.py"),
            code_paths=code_paths,
            model_config=agent.config.to_model_config(),
            input_example=input_example(agent),
            pip_requirements=pinned,
            registered_model_name=settings.model_name if register else None,
        )
    found = info.registered_model_version
    return LoggedAgent(info.model_uri, run.info.run_id, None if found is None else str(found))


def input_example(agent: Agent) -> dict[str, object]:
    """A request that the agent can answer."""
    return {"input": [{"role": "user", "content": agent.example_questions[0]}]}


def requirements(agent: Agent) -> list[str]:
    """What the logged model needs, pinned to what is installed here; oneturn itself travels as code."""
    extras = {"local"} if agent.config.lm.is_local else set()
    if agent.config.lm.model.startswith("databricks/"):
        extras.add("databricks")
    names = sorted({*_oneturns_requirements(extras), *agent.requirements})
    return [f"{name}=={version(name)}" for name in names]


def _oneturns_requirements(extras: set[str]) -> Iterator[str]:
    try:
        declared = requires("oneturn") or []
    except PackageNotFoundError:
        raise ProgramError("oneturn isn't installed here; run: pip install -e .") from None
    for line in declared:
        requirement = Requirement(line)
        wanted = [{"extra": extra} for extra in sorted(extras)] or [{"extra": ""}]
        marker = requirement.marker
        if (marker is None or any(marker.evaluate(context) for context in wanted)) and _installed(requirement.name):
            yield requirement.name


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _code_paths(agent: Agent) -> list[Path]:
    paths = [_PACKAGE, *(agent.root / name for name in agent.code_paths)]
    for path in paths:
        if not path.exists():
            raise ProgramError(f"{path} isn't there; agent.py declares it in code_paths.")
    return paths


def _log_origin(agent: Agent) -> None:
    """What MLflow doesn't log by itself, which is all but the configuration: where the compiled program comes from."""
    if agent.config.compiled is None:
        return
    manifest = read_manifest(agent.compiled_path)
    mlflow.log_params({"recipe": manifest.recipe, "compiled_on": manifest.lm, "dataset_dev": manifest.dataset["dev"]})
    mlflow.log_metrics({f"dev_{name}": value for name, value in manifest.scores["after"].items()})
    mlflow.log_artifact(str(agent.compiled_path), artifact_path="compiled")
    if manifest.interface is not None:
        interface = manifest.interface
        mlflow.log_params({"signature_sha256": interface.signature_sha256, "tools_sha256": interface.tools_sha256})
    if differences := drift(agent.build(), agent.compiled_path):
        mlflow.set_tag("oneturn.drift", "; ".join(differences))
