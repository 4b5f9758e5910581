"""Registered versions of an agent: which there are, and how each answers, measured as it serves.

Two logged models in one process would run the first one's code, silently. So each version answers in a process of its
own, with its own code, its own configuration and its own LM. All are judged here, by one metric.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pandas as pd
import pydantic
from dspy.adapters.utils import serialize_for_json
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from oneturn.agent import Agent
from oneturn.config.loading import CONFIG_VARIABLE, SET_VARIABLE
from oneturn.errors import OneTurnError, ProgramError
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.row import judged
from oneturn.evaluation.run_record import RunRecord, with_record
from oneturn.programs.react import ReAct
from oneturn.programs.react.trajectory import Turn
from oneturn.programs.signature import signature_of

_SCRIPT = Path(__file__).with_name("_answer_as_version.py")
_PREDICTED = "pred_"
_RECORDED = ("pred_tool_calls", "pred_sources", "pred_approvals")
"""What an evaluation tells of a run beside its outputs."""


def version_of(client: mlflow.MlflowClient, name: str, version: str | None) -> ModelVersion:
    """A registered version; the latest if none is said.

    Raises:
        ProgramError: there is no such version.
    """
    found = {str(entry.version): entry for entry in client.search_model_versions(f"name = '{name}'")}
    if not found:
        raise ProgramError(f"There is no registered model {name!r}. Register a version with: oneturn log --register")
    wanted = max(found, key=int) if version is None else version
    if wanted not in found:
        known = ", ".join(sorted(found, key=int))
        raise ProgramError(f"There is no version {version!r} of {name!r}; there are: {known}.")
    return found[wanted]


def champion_of(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that the alias points at; ``None`` if it points at none."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            return None
        raise


def is_compiled(version: ModelVersion) -> bool:
    """Whether a version was logged with a compiled program.

    Raises:
        ProgramError: its model isn't there, or isn't an agent of oneturn's.
    """
    with _readable(version):
        return _config(Model.load(_uri(version))).get("compiled") is not None


def evaluate_version(
    agent: Agent, version: ModelVersion, examples: Sequence[dspy.Example], *, compiled: bool = True
) -> Evaluation:
    """Let a version answer examples as it serves, and judge its answers by ``agent``'s metric.

    The version sees the examples' inputs only. It runs in this Python environment, not in one of its own.

    Args:
        agent: whose metric judges; its program's signature says of what types the answers are.
        version: a registered version.
        examples: with inputs marked.
        compiled: whether its compiled program answers, or the program as its code declares it.

    Raises:
        ProgramError: the version can't be run here.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = _answers(version, examples, Path(folder), agent.root, compiled)
    types = _types(agent)
    scored = [_row(agent, example, row, types) for example, row in zip(examples, rows, strict=True)]
    return Evaluation(pd.DataFrame(scored))


def _answers(
    version: ModelVersion, examples: Sequence[dspy.Example], folder: Path, root: Path, compiled: bool
) -> list[dict[str, Any]]:
    with _readable(version):
        model = Path(mlflow.artifacts.download_artifacts(_uri(version), dst_path=str(folder / "model")))
        described = Model.load(str(model))
        agent_file = Path(_pyfunc(described)["model_code_path"]).name
    config, questions, answers = folder / "config.yaml", folder / "questions.jsonl", folder / "answers.jsonl"
    config.write_text(json.dumps(_config(described)), encoding="utf-8")
    lines = (json.dumps(serialize_for_json(example.inputs().toDict()), ensure_ascii=False) for example in examples)
    questions.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, str(_SCRIPT), str(model), agent_file, str(questions), str(answers)]
    # What is set for this command is for the agent here; a version keeps to the configuration it was logged with.
    here = {name: value for name, value in os.environ.items() if name != SET_VARIABLE}
    ended = subprocess.run(  # noqa: S603  # this Python, a script of ours, and the paths of a folder that was just made
        [*command, *([] if compiled else ["uncompiled"])],
        env={**here, CONFIG_VARIABLE: str(config)},
        cwd=root,
        check=False,
    )
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()] if answers.exists() else []
    failure = rows[0].get("failed") if rows else f"its process ended with exit code {ended.returncode}"
    if failure:
        raise _unusable(version, failure)
    return rows


@contextmanager
def _readable(version: ModelVersion) -> Iterator[None]:
    """What a model that is gone, or that something else than oneturn has logged, raises, as a ``ProgramError``."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise _unusable(version, f"its model can't be read: {error}") from None
    except KeyError:
        raise _unusable(version, "it wasn't logged by oneturn, but in another form") from None


def _unusable(version: ModelVersion, why: str) -> ProgramError:
    return ProgramError(f"Version {version.version} of {version.name!r} can't be run here: {why}")


def _row(agent: Agent, example: dspy.Example, answered: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    answered = {name: None if _is_nan(value) else value for name, value in answered.items()}
    row = {name: serialize_for_json(value) for name, value in example.items()} | answered
    if answered["error"] is not None:
        return row
    told = {
        name.removeprefix(_PREDICTED): value
        for name, value in answered.items()
        if name.startswith(_PREDICTED) and name not in _RECORDED
    }
    calls, sources, approvals = (tuple(answered.get(name) or ()) for name in _RECORDED)
    record = RunRecord(calls, sources, approvals=approvals)
    prediction = with_record(dspy.Prediction(**dict(_typed(told, types))), record)
    return judged(row, {"score": agent.metric}, example, prediction)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _types(agent: Agent) -> dict[str, Any]:
    """The types of the outputs, as the program declares them; none where it doesn't."""
    program = agent.build()
    try:
        types = {name: field.annotation for name, field in signature_of(program).output_fields.items()}
    except OneTurnError:
        return {}
    return {**types, "trajectory": list[Turn]} if isinstance(program, ReAct) else types


def _typed(told: Mapping[str, Any], types: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in told.items():
        try:
            yield name, pydantic.TypeAdapter(types[name]).validate_python(value)
        except (KeyError, pydantic.ValidationError, pydantic.errors.PydanticSchemaGenerationError):
            yield name, value


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def _config(model: Model) -> dict[str, Any]:
    return _pyfunc(model).get("config") or {}


def _pyfunc(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = model.flavors["python_function"]
    return found
