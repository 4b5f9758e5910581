"""``RunRecord``: the tool calls, retrieved documents and cited sources of a run.

In ``oneturn.evaluate`` it is attached to the prediction, for every kind of target. In an optimizer it is read from the
trajectory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from oneturn.core._dspy import with_field
from oneturn.core.serialization import jsonable
from oneturn.core.steps import source
from oneturn.tools.registry import documents_in

Fields = dict[str, Any]

KEY = "dspy_oneturn_run"
"""The prediction's key for the record; DSPy ignores names with the prefix ``dspy_``."""
RUN_COLUMNS = ("run_tool_calls", "run_sources", "run_approvals")
"""The columns of a row for the record. Those of outputs begin with ``pred_``, so that an output may have any name."""


@dataclass(frozen=True)
class RunRecord:
    """Tool calls and sources of a run.

    Attributes:
        tool_calls: in order, each with ``name``, ``arguments``, ``output``, and ``sources``: ``id``, ``title`` and
            ``url`` of each document that the tool returned.
        sources: the sources that the answer cites.
        trace_id: the id of its MLflow trace; ``None`` if there is none.
        approvals: the calls that need a person's approval and weren't made, each with ``name`` and ``arguments``: the
            run ended there, without an answer.
    """

    tool_calls: tuple[Mapping[str, Any], ...] = ()
    sources: tuple[str, ...] = ()
    trace_id: str | None = None
    approvals: tuple[Mapping[str, Any], ...] = ()

    @property
    def outcome(self) -> str:
        """``"approval_required"``, or ``"completed"``."""
        return "approval_required" if self.approvals else "completed"

    @property
    def found(self) -> list[Mapping[str, str]]:
        """The documents that the tools returned, without duplicates, in order."""
        documents = [document for call in self.tool_calls for document in call.get("sources") or ()]
        return list({str(document.get("id")): document for document in reversed(documents)}.values())[::-1]


def run_record(prediction: Any) -> RunRecord:
    """The record of the run that produced a prediction."""
    record = prediction.get(KEY) if hasattr(prediction, "get") else None
    if isinstance(record, RunRecord):
        return record
    return RunRecord(tuple(tool_calls(prediction)), tuple(cited_sources(prediction)))


class Unanswered(dspy.Prediction):
    """The prediction of a run that ended in ``approval_required``: each of its outputs is ``None``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.get(name)


def with_record(prediction: dspy.Prediction, record: RunRecord) -> dspy.Prediction:
    """A copy of a prediction with the record of its run."""
    return with_field(Unanswered(**prediction) if record.approvals else prediction, KEY, record)


def cited_sources(prediction: Any, field: str = "citations") -> list[str]:
    """The sources listed in one of a prediction's fields."""
    sources = prediction.get(field) if hasattr(prediction, "get") else None
    if isinstance(sources, str):
        return [sources]
    return [str(each) for each in sources] if isinstance(sources, Sequence) else []


def tool_calls(prediction: Any) -> list[Fields]:
    """The tool calls of a run, from the trajectory of ``oneturn.ReAct`` or ``dspy.ReAct``."""
    trajectory = prediction.get("trajectory") if hasattr(prediction, "get") else None
    if isinstance(trajectory, list):
        return [
            _call(turn.tool_call.name, dict(turn.tool_call.args), turn.observation, turn.sources)
            for turn in trajectory
            if getattr(turn, "tool_call", None) is not None
        ]
    if not isinstance(trajectory, Mapping):
        return []
    numbers = [str(key).removeprefix("tool_name_") for key in trajectory if str(key).startswith("tool_name_")]
    return [_dspy_call(trajectory, number) for number in numbers if trajectory[f"tool_name_{number}"] != "finish"]


def arguments(raw: Any) -> Any:
    """The arguments of a call; the JSON text of an object is parsed."""
    if not isinstance(raw, str):
        return raw
    try:
        parsed = json.loads(raw)
    except ValueError:
        return raw
    return parsed if isinstance(parsed, dict) else raw


def _dspy_call(trajectory: Mapping[Any, Any], number: str) -> Fields:
    output = trajectory.get(f"observation_{number}")
    documents = [source(document) for document in documents_in(output)]
    name, given = trajectory[f"tool_name_{number}"], trajectory.get(f"tool_args_{number}")
    return _call(name, given, jsonable(output), documents)


def _call(name: str, given: Any, output: Any, documents: Sequence[Mapping[str, str]]) -> Fields:
    return {"name": name, "arguments": given, "output": output, "sources": [dict(document) for document in documents]}
