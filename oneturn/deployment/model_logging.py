"""Log an agent as an MLflow model, with its code, configuration, compiled program and pinned requirements."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from packaging.requirements import Requirement

from oneturn.agent import Agent
from oneturn.config.tools import McpTools
from oneturn.config.tracking import use_tracking
from oneturn.datasets.rows import find_measured_dataset
from oneturn.deployment.completeness import check_complete, missing_modules
from oneturn.deployment.preflight import refuse_unsigned_approvals
from oneturn.deployment.resources import auth_policy_of
from oneturn.errors import ConfigError, ProgramError
from oneturn.programs.state import check_secrets, drift_of, read_manifest
from oneturn.serving.server import warm_up

REQUIREMENTS = "requirements.txt"
"""The file with the pinned requirements, next to oneturn where oneturn is deployed as code."""

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class LoggedAgent:
    """A logged agent: its model URI, and the run with its parameters, scores and compiled program."""

    model_uri: str
    run_id: str
    registered_version: str | None


def log_model(agent: Agent, *, register: bool = False, alias: str | None = None) -> LoggedAgent:
    """Log ``agent`` as a models-from-code MLflow model.

    MLflow sends the agent its example question while logging, so the LM must be available. The question is then asked
    again in a new process, in which the agent's folder can't be imported. The model declares the
    Databricks workspace resources that the configuration needs; the deployed agent gets access to exactly these.

    Args:
        agent: the agent to log.
        register: whether to register the model under the configured name, as a new version.
        alias: the alias for the new version, such as ``"challenger"``; only with ``register``.

    Raises:
        ProgramError: a folder that the agent declares doesn't exist; or its compiled program is in none of them,
            contains what looks like a secret, or was compiled for another program; or the logged model fails in a
            clean process, for example for a module that ``code_paths`` doesn't carry.
        ConfigError: ``alias`` is given without ``register``; or a tool may need a person's approval, and no key is
            configured to sign it.
    """
    settings = agent.config.mlflow
    if alias is not None and not register:
        raise ConfigError(f"The alias {alias!r} needs a registered version: add --register.")
    if agent.config.compiled is not None:
        check_secrets(agent.compiled_path)
    agent.program()
    refuse_unsigned_approvals(agent)
    paths, pinned_requirements = [str(path) for path in code_paths(agent)], requirements(agent)
    if agent.config.compiled is not None:
        _check_compiled_path(agent)
    if missing := missing_modules(agent):
        raise ProgramError(f"{missing[0]} isn't logged with the model: add it to code_paths in agent.py.")
    use_tracking(settings, agent.root)
    warm_up(agent.adapter())
    with mlflow.start_run(run_name=agent.name) as run:
        _log_origin(agent)
        with _without_warnings():
            info = mlflow.pyfunc.log_model(
                name=agent.name,
                python_model=str(agent.root / "agent.py"),
                code_paths=paths,
                model_config=agent.config.to_model_config(),
                input_example=agent.example_request(),
                pip_requirements=pinned_requirements,
                auth_policy=auth_policy_of(agent.config),
            )
        try:
            check_complete(agent, info.model_uri)
        except ProgramError:
            MlflowClient().delete_logged_model(info.model_id)
            raise
        _log_scores(agent, info.model_id)
    number = str(mlflow.register_model(info.model_uri, settings.model_name).version) if register else None
    if alias is not None and number is not None:
        MlflowClient().set_registered_model_alias(settings.model_name, alias, number)
    return LoggedAgent(info.model_uri, run.info.run_id, number)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """In the block, MLflow doesn't warn that the model can't answer its example: ``check_complete`` says why."""
    logger = logging.getLogger("mlflow.models.model")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def requirements(agent: Agent) -> list[str]:
    """The logged model's requirements, pinned to the installed versions; oneturn itself is logged as code."""
    pinned_file = _PACKAGE.with_name(REQUIREMENTS)
    if not _installed("oneturn") and pinned_file.is_file():  # oneturn was deployed as code, as in a release job
        return pinned_file.read_text(encoding="utf-8").split()
    config = agent.config
    needed = {
        "local": config.needs_weights,
        "databricks": auth_policy_of(config) is not None,
        "mcp": any(isinstance(tool, McpTools) for tool in config.tools),
        "store": bool(config.serve.store_env or config.approvals.ledger_env),
    }
    extras = {extra for extra, is_needed in needed.items() if is_needed}
    names = sorted({*_oneturn_requirements(extras), *agent.requirements})
    return [f"{name}=={version(name)}" for name in names]


def _oneturn_requirements(extras: set[str]) -> Iterator[str]:
    try:
        declared = requires("oneturn") or []
    except PackageNotFoundError:
        raise ProgramError("oneturn isn't installed here; run: pip install -e .") from None
    for line in declared:
        requirement = Requirement(line)
        contexts = [{"extra": extra} for extra in sorted(extras)] or [{"extra": ""}]
        marker = requirement.marker
        if (marker is None or any(marker.evaluate(context) for context in contexts)) and _installed(requirement.name):
            yield requirement.name


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def code_paths(agent: Agent) -> list[Path]:
    """The folders and files logged with the agent, starting with oneturn.

    Raises:
        ProgramError: one of them doesn't exist.
    """
    paths = [_PACKAGE, *(agent.root / name for name in agent.logged_paths)]
    for path in paths:
        if not path.exists():
            raise ProgramError(f"{path} doesn't exist; agent.py declares it in code_paths.")
    return paths


def _check_compiled_path(agent: Agent) -> None:
    """Raise ``ProgramError`` if the compiled program isn't in a logged folder, because serving would miss it."""
    folders = [(agent.root / name).resolve() for name in agent.logged_paths]
    if not any(agent.compiled_path.resolve().is_relative_to(folder) for folder in folders):
        raise ProgramError(
            f"{agent.compiled_path} isn't logged with the model: the logged folders are "
            f"{', '.join(agent.logged_paths) or 'none'} (code_paths in agent.py). Save it in one of them, and set "
            "compiled to its path."
        )


def _log_origin(agent: Agent) -> None:
    """Log the origin of the compiled program; MLflow itself logs only the configuration."""
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
        mlflow.set_tag("oneturn.dataset", "The development examples changed after the scores were measured.")
    else:
        mlflow.log_input(dataset, context="dev")
    scores = {f"dev_{name}": value for name, value in manifest.scores["after"].items()}
    mlflow.log_metrics(scores, dataset=dataset, model_id=model_id)
