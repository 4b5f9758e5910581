"""A demo as a short run that a person reads: what was asked, what was called, what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dspy
from dspy.adapters.utils import serialize_for_json

WIDTH = 110
"""Characters of a line; what is longer is cut, with its length told."""


def run_lines(demo: Mapping[str, Any]) -> list[str]:
    """The demo, a line a field, a call or a result; those of the trajectory are indented."""
    return [line for key, value in demo.items() if key != "augmented" for line in _field(key, value)]


def title(demo: Mapping[str, Any]) -> str:
    """What the demo is about: its first field."""
    value = next((value for key, value in demo.items() if key != "augmented"), "")
    return cut(_text(value))


def _field(key: str, value: Any) -> Iterator[str]:
    if key == "trajectory" and isinstance(value, list):
        for turn in value:
            yield from _turn(turn)
    elif isinstance(value, Mapping) and {"name", "args"} <= set(value):
        yield f"  {_call(value)}"
    elif value not in (None, "", []):
        yield f"{key}: {_text(value)}"


def _turn(turn: Any) -> Iterator[str]:
    if not isinstance(turn, Mapping):
        yield f"  {_text(turn)}"
        return
    if turn.get("thought"):
        yield f"  ({_text(turn['thought'])})"
    if turn.get("tool_call"):
        yield f"  {_call(turn['tool_call'])}"
    if turn.get("observation") is not None:
        yield f"    = {_text(turn['observation'])}"


def _call(call: Mapping[str, Any]) -> str:
    args = call["args"] if isinstance(call["args"], Mapping) else {}
    return f"{call['name']}({', '.join(f'{name}={_json(value)}' for name, value in args.items())})"


def _text(value: Any) -> str:
    return " ".join((value if isinstance(value, str) else _json(value)).split())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def cut(line: str) -> str:
    """A line that fits; of a longer one the beginning, with its length."""
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}… ({len(line)} characters)"


def readable(program: dspy.Module) -> str:
    """Instructions and demos of each predictor, in Markdown."""
    return "\n".join(line for name, predictor in program.named_predictors() for line in _predictor(name, predictor))


def _predictor(name: str, predictor: dspy.Predict) -> Iterator[str]:
    yield f"# {name}\n"
    yield predictor.signature.instructions.strip() + "\n"
    for number, demo in enumerate(predictor.demos, start=1):
        yield f"## Demo {number}\n"
        yield from (line for key, value in dict(demo).items() for line in _prompts_field(key, value))
        yield ""


def _prompts_field(key: str, value: Any) -> Iterator[str]:
    plain = serialize_for_json(value)
    if key == "augmented":
        return
    if key == "trajectory" and isinstance(plain, list):
        yield from (line for turn in plain for line in _prompts_turn(turn))
    elif isinstance(plain, Mapping) and set(plain) == {"name", "args"}:
        yield f"- **{plain['name']}** {_json(plain['args'])}"
    else:
        yield f"- {key}: {plain if isinstance(plain, str) else _json(plain)}"


def _prompts_turn(turn: Mapping[str, Any]) -> Iterator[str]:
    if turn.get("thought"):
        yield f"- thought: {turn['thought']}"
    if turn.get("tool_call"):
        yield f"- **{turn['tool_call']['name']}** {_json(turn['tool_call']['args'])}"
    yield f"  - {turn.get('observation')}"
