"""A program's prompts, as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json


def readable(program: dspy.Module) -> str:
    """Instructions and demos of each predictor, in Markdown."""
    return "\n".join(line for name, predictor in program.named_predictors() for line in _predictor(name, predictor))


def _predictor(name: str, predictor: dspy.Predict) -> Iterator[str]:
    yield f"# {name}\n"
    yield predictor.signature.instructions.strip() + "\n"
    for number, demo in enumerate(predictor.demos, start=1):
        yield f"## Demo {number}\n"
        yield from (line for key, value in dict(demo).items() for line in _field(key, value))
        yield ""


def _field(key: str, value: Any) -> Iterator[str]:
    plain = serialize_for_json(value)
    if key == "augmented":
        return
    if key == "trajectory" and isinstance(plain, list):
        yield from (line for turn in plain for line in _turn(turn))
    elif isinstance(plain, Mapping) and set(plain) == {"name", "args"}:
        yield f"- **{plain['name']}** {_json(plain['args'])}"
    else:
        yield f"- {key}: {plain if isinstance(plain, str) else _json(plain)}"


def _turn(turn: Mapping[str, Any]) -> Iterator[str]:
    if turn.get("thought"):
        yield f"- thought: {turn['thought']}"
    if turn.get("tool_call"):
        yield f"- **{turn['tool_call']['name']}** {_json(turn['tool_call']['args'])}"
    yield f"  - {turn.get('observation')}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
