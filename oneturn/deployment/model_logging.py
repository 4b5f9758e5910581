"""Log an agent as an MLflow model: its code, its configuration, its compiled program, its pinned requirements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from packaging.requirements import Requirement

from oneturn.agent import Agent
from oneturn.config.tracking import use_tracking
from oneturn.datasets.rows import find_measured_dataset
from oneturn.deployment.resources import auth_policy_of
from oneturn.errors import ConfigError, ProgramError
from oneturn.programs.state import check_secrets, drift_of, read_manifest

REQUIREMENTS = "requirements.txt"
"""Where the pinned requirements stand, beside oneturn, when it travels as code."""

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class LoggedAgent:
    """A logged agent: where it is, and the run that holds its parameters, scores and compiled program."""

    model_uri: str
    run_id: str
    registered_version: str | None


def log_model(agent: Agent, *, register: bool = False, alias: str | None = None) -> LoggedAgent:
    """Log ``agent`` as a models-from-code MLflow model.

    MLflow asks the agent its example question while it logs, so the LM must be able to answer. What the configuration
    needs of a Databricks workspace is declared on the model: Databricks gives the deployed agent access to just that.

    Args:
        agent: what to log.
        register: whether to register the model under the configured name, as a new version.
        alias: the registered model's alias that the new version gets, such as ``"challenger"``; only with ``register``.

    Raises:
        ProgramError: a folder that the agent declares isn't there; or its compiled program is in none of them, holds
            what looks like a secret, or was compiled for another program.
        ConfigError: there is an alias and nothing to give it to.
    """
    settings = agent.config.mlflow
    if alias is not None and not register:
        raise ConfigError(f"Only a registered version can have the alias {alias!r}: log it with --register, too.")
    if agent.config.compiled is not None:
        check_secrets(agent.compiled_path)
    agent.program()
    travelling, pinned = [str(path) for path in code_paths(agent)], requirements(agent)
    if agent.config.compiled is not None:
        _check_that_it_travels(agent)
    use_tracking(settings)
    with mlflow.start_run(run_name=agent.name) as run:
        _log_origin(agent)
        info = mlflow.pyfunc.log_model(
            name=agent.name,
            python_model=str(agent.root / "agent.py"),
            code_paths=travelling,
            model_config=agent.config.to_model_config(),
            input_example=input_example(agent),
            pip_requirements=pinned,
            auth_policy=auth_policy_of(agent.config),
            registered_model_name=settings.model_name if register else None,
        )
        _log_scores(agent, info.model_id)
    found = info.registered_model_version
    number = None if found is None else str(found)
    if alias is not None and number is not None:
        MlflowClient().set_registered_model_alias(settings.model_name, alias, number)
    return LoggedAgent(info.model_uri, run.info.run_id, number)


def input_example(agent: Agent) -> dict[str, object]:
    """A request that the agent can answer."""
    return {"input": [{"role": "user", "content": agent.example_questions[0]}]}


def requirements(agent: Agent) -> list[str]:
    """What the logged model needs, pinned to what is installed here; oneturn itself travels as code."""
    beside = _PACKAGE.with_name(REQUIREMENTS)
    if not _installed("oneturn") and beside.is_file():  # oneturn has come as code, as to a release job
        return beside.read_text(encoding="utf-8").split()
    extras = {"local"} if agent.config.needs_weights else set()
    if auth_policy_of(agent.config) is not None:
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


def code_paths(agent: Agent) -> list[Path]:
    """The folders and files that travel with the agent, oneturn itself first.

    Raises:
        ProgramError: one isn't there.
    """
    paths = [_PACKAGE, *(agent.root / name for name in agent.code_paths)]
    for path in paths:
        if not path.exists():
            raise ProgramError(f"{path} isn't there; agent.py declares it in code_paths.")
    return paths


def _check_that_it_travels(agent: Agent) -> None:
    """A compiled program elsewhere would be found here, and missed where the model is served."""
    folders = [(agent.root / name).resolve() for name in agent.code_paths]
    if not any(agent.compiled_path.resolve().is_relative_to(folder) for folder in folders):
        raise ProgramError(
            f"{agent.compiled_path} wouldn't travel with the model: the folders that do are "
            f"{', '.join(agent.code_paths) or 'none'} (code_paths in agent.py). Save it in one of them, and set "
            "compiled to that."
        )


def _log_origin(agent: Agent) -> None:
    """What MLflow doesn't log by itself, which is all but the configuration: where the compiled program comes from."""
    if agent.config.compiled is None:
        return
    manifest = read_manifest(agent.compiled_path)
    mlflow.log_params({"recipe": manifest.recipe, "compiled_on": manifest.lm, "dataset_dev": manifest.dataset["dev"]})
    mlflow.log_artifact(str(agent.compiled_path), artifact_path="compiled")
    if manifest.interface is not None:
        interface = manifest.interface
        mlflow.log_params({"signature_sha256": interface.signature_sha256, "tools_sha256": interface.tools_sha256})
    if differences := drift_of(agent.build(), agent.compiled_path):
        mlflow.set_tag("oneturn.drift", "; ".join(differences))


def _log_scores(agent: Agent, model_id: str) -> None:
    """The compiled program's scores, as metrics of the logged model, with the examples that they were measured on."""
    if agent.config.compiled is None:
        return
    manifest = read_manifest(agent.compiled_path)
    dataset = find_measured_dataset(agent, manifest.dataset["dev"])
    if dataset is None:
        mlflow.set_tag("oneturn.dataset", "The development examples have changed since the scores were measured.")
    else:
        mlflow.log_input(dataset, context="dev")
    scores = {f"dev_{name}": value for name, value in manifest.scores["after"].items()}
    mlflow.log_metrics(scores, dataset=dataset, model_id=model_id)
