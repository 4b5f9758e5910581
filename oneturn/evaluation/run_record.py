"""What a run did, beside its outputs: the tools that it called, what they found, what the answer cites.

A metric of ``oneturn.evaluate`` gets it with the prediction, whatever was evaluated; a metric of an optimizer finds it
in the trajectory.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json

from oneturn.core.steps import source
from oneturn.tools.registry import documents_in

Fields = dict[str, Any]

KEY = "dspy_oneturn_run"
"""Where a prediction keeps it: DSPy passes over names that begin so."""


@dataclass(frozen=True)
class RunRecord:
    """What a run did.

    Attributes:
        tool_calls: in order, each with ``name``, ``arguments``, ``output``, and ``sources``: ``id``, ``title`` and
            ``url`` of each document that it found.
        sources: what the answer cites.
        trace_id: of its MLflow trace, if it has one.
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
        """What the tools found, each once, in the order it came."""
        each = [found for call in self.tool_calls for found in call.get("sources") or ()]
        return list({str(found.get("id")): found for found in reversed(each)}.values())[::-1]


def run_record(prediction: Any) -> RunRecord:
    """What the run did that gave a prediction."""
    known = prediction.get(KEY) if hasattr(prediction, "get") else None
    if isinstance(known, RunRecord):
        return known
    return RunRecord(tuple(tool_calls(prediction)), tuple(cited(prediction)))


class Unanswered(dspy.Prediction):
    """The prediction of a run that ended in ``approval_required``: each of its outputs is ``None``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._store.get(name)


def with_record(prediction: dspy.Prediction, record: RunRecord) -> dspy.Prediction:
    """A copy of a prediction that knows what its run did."""
    noted = Unanswered() if record.approvals else copy.copy(prediction)
    noted._store = {**prediction._store, KEY: record}
    return noted


def cited(prediction: Any, field: str = "citations") -> list[str]:
    """The sources that a prediction names in one of its fields."""
    named = prediction.get(field) if hasattr(prediction, "get") else None
    if isinstance(named, str):
        return [named]
    return [str(each) for each in named] if isinstance(named, Sequence) else []


def tool_calls(prediction: Any) -> list[Fields]:
    """The tools that a run called, from its trajectory: that of ``oneturn.ReAct``, or ``dspy.ReAct``'s."""
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


def arguments(told: Any) -> Any:
    """A call's arguments as a dict, where they are the JSON text of one."""
    if not isinstance(told, str):
        return told
    try:
        found = json.loads(told)
    except ValueError:
        return told
    return found if isinstance(found, dict) else told


def _dspy_call(trajectory: Mapping[Any, Any], number: str) -> Fields:
    output = trajectory.get(f"observation_{number}")
    found = [source(document) for document in documents_in(output)]
    name, given = trajectory[f"tool_name_{number}"], trajectory.get(f"tool_args_{number}")
    return _call(name, given, serialize_for_json(output), found)


def _call(name: str, given: Any, output: Any, found: Sequence[Mapping[str, str]]) -> Fields:
    return {"name": name, "arguments": given, "output": output, "sources": [dict(each) for each in found]}
