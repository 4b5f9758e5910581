"""Registered versions of an agent: look them up and evaluate them.

Each version answers in its own process, with its own code, configuration and LM, because two logged models in one
process would silently run the code of the first. All answers are judged in this process by the same metric.
"""

from __future__ import annotations

import json
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
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from oneturn.agent import Agent
from oneturn.config.loading import CONFIG_VARIABLE, SET_VARIABLE
from oneturn.core.fields import dump_field
from oneturn.core.serialization import jsonable
from oneturn.errors import ProgramError
from oneturn.evaluation.column_names import PREDICTED, check_column_names
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.results_reader import to_frame
from oneturn.evaluation.row import encodable, judge_row
from oneturn.evaluation.run_record import RUN_COLUMNS, RunRecord, with_record
from oneturn.evaluation.typed_fields import output_types, with_types
from oneturn.lm.local.server import server_variables

_SCRIPT = Path(__file__).with_name("_answer_as_version.py")


def version_of(client: mlflow.MlflowClient, name: str, version: str | None) -> ModelVersion:
    """A registered version; the latest if ``version`` is ``None``.

    Raises:
        ProgramError: there is no such model or version.
    """
    versions = {str(entry.version): entry for entry in client.search_model_versions(f"name = '{name}'")}
    if not versions:
        raise ProgramError(f"There is no registered model {name!r}. Register a version with: oneturn log --register")
    number = max(versions, key=int) if version is None else version
    if number not in versions:
        numbers = ", ".join(sorted(versions, key=int))
        raise ProgramError(f"There is no version {version!r} of {name!r}; existing versions: {numbers}.")
    return versions[number]


def champion_of(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that the alias points at; ``None`` if there is none."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            return None
        raise


def is_compiled(version: ModelVersion) -> bool:
    """Whether a version was logged with a compiled program.

    Raises:
        ProgramError: its model doesn't exist, or wasn't logged by oneturn.
    """
    with _read_errors(version):
        return _config(Model.load(_uri(version))).get("compiled") is not None


def evaluate_version(
    agent: Agent, version: ModelVersion, examples: Sequence[dspy.Example], *, compiled: bool = True
) -> Evaluation:
    """Run a version on examples and judge its answers by ``agent``'s metric.

    The version receives only the examples' inputs. It runs in the current Python environment.

    Args:
        agent: provides the metric, and the output types through its program's signature.
        version: a registered version.
        examples: examples with marked inputs.
        compiled: whether to use the version's compiled program, rather than its uncompiled one.

    Raises:
        DataError: an example has a field with the name of a result column.
        ProgramError: the version can't be run in this environment.
    """
    check_column_names(examples, ["score"], output_types(agent))
    with tempfile.TemporaryDirectory() as folder:
        rows = _answers(version, examples, Path(folder), agent.root, compiled)
    types = output_types(agent)
    judged_rows = [_row(agent, example, row, types) for example, row in zip(examples, rows, strict=True)]
    return Evaluation(to_frame(judged_rows))


def _answers(
    version: ModelVersion, examples: Sequence[dspy.Example], folder: Path, root: Path, compiled: bool
) -> list[dict[str, Any]]:
    with _read_errors(version):
        model = Path(mlflow.artifacts.download_artifacts(_uri(version), dst_path=str(folder / "model")))
        mlmodel = Model.load(str(model))
        agent_file = Path(_pyfunc(mlmodel)["model_code_path"]).name
    config, questions, answers = folder / "config.yaml", folder / "questions.jsonl", folder / "answers.jsonl"
    config.write_text(json.dumps(_config(mlmodel)), encoding="utf-8")
    inputs = (json.dumps(dump_field(dict(example.inputs().items()))) for example in examples)
    questions.write_text("".join(f"{line}\n" for line in inputs), encoding="utf-8")
    command = [sys.executable, str(_SCRIPT), str(model), agent_file, str(questions), str(answers)]
    # --set overrides apply to the local agent only; a version uses the configuration that it was logged with.
    environment = {name: value for name, value in os.environ.items() if name != SET_VARIABLE}
    completed = subprocess.run(  # noqa: S603  # this Python, our own script, and paths in a new temporary folder
        [*command, *([] if compiled else ["uncompiled"])],
        env={**environment, **server_variables(), CONFIG_VARIABLE: str(config)},
        cwd=root,
        check=False,
    )
    lines = answers.read_text(encoding="utf-8").split("\n") if answers.exists() else []
    rows = [json.loads(line) for line in lines if line]
    failure = rows[0].get("failed") if rows else f"its process exited with code {completed.returncode}"
    if failure:
        raise _unusable(version, failure)
    return rows


@contextmanager
def _read_errors(version: ModelVersion) -> Iterator[None]:
    """Convert the errors of a missing model, or of one that oneturn didn't log, to ``ProgramError``."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise _unusable(version, f"its model can't be read: {error}") from None
    except KeyError:
        raise _unusable(version, "it wasn't logged by oneturn") from None


def _unusable(version: ModelVersion, reason: str) -> ProgramError:
    return ProgramError(f"Version {version.version} of {version.name!r} can't be run here: {reason}")


def _row(agent: Agent, example: dspy.Example, answered: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {**{name: jsonable(value) for name, value in example.items()}, **answered}
    if answered["error"] is not None:
        return encodable(row)
    outputs = {name.removeprefix(PREDICTED): value for name, value in answered.items() if name.startswith(PREDICTED)}
    calls, sources, approvals = (tuple(answered.get(name) or ()) for name in RUN_COLUMNS)
    record = RunRecord(calls, sources, approvals=approvals)
    prediction = with_record(dspy.Prediction(**with_types(outputs, types)), record)
    return judge_row(row, {"score": agent.metric}, example, prediction)


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def _config(model: Model) -> dict[str, Any]:
    return _pyfunc(model).get("config") or {}


def _pyfunc(model: Model) -> dict[str, Any]:
    flavor: dict[str, Any] = model.flavors["python_function"]
    return flavor
