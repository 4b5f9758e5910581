"""Render demos as short, readable runs, and prompts as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dspy

from oneturn.core.serialization import jsonable
from oneturn.programs.react import DemoPool

WIDTH = 110
"""Maximum length of a line in characters; a longer line is cut and its length appended."""


def run_lines(demo: Mapping[str, Any]) -> list[str]:
    """Render a demo with one line per field, call or result; lines of the trajectory are indented."""
    return [line for key, value in demo.items() if key != "augmented" for line in _field(key, value)]


def title(demo: Mapping[str, Any]) -> str:
    """The title of a demo: its first field."""
    value = next((value for key, value in demo.items() if key != "augmented"), "")
    return truncate(_text(value))


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


def truncate(line: str) -> str:
    """Cut a line that is too long and append its length."""
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}… ({len(line)} characters)"


def format_prompts(program: dspy.Module) -> str:
    """Render the instructions and demos of each predictor as Markdown."""
    prompts = [line for name, predictor in program.named_predictors() for line in _predictor(name, predictor)]
    pools = [(name, part) for name, part in program.named_parameters() if isinstance(part, DemoPool)]
    return "\n".join([*prompts, *(line for name, pool in pools for line in _pool(name, pool))])


def _pool(name: str, pool: DemoPool) -> Iterator[str]:
    yield f"# {name}: {pool.k} of these {len(pool.runs)} runs as demos per question\n"
    yield from _demos(pool.runs)


def _predictor(name: str, predictor: dspy.Predict) -> Iterator[str]:
    yield f"# {name}\n"
    yield predictor.signature.instructions.strip() + "\n"
    yield from _demos(predictor.demos)


def _demos(demos: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for number, demo in enumerate(demos, start=1):
        yield f"## Demo {number}\n"
        yield from (f"    {line}" for line in run_lines(jsonable(dict(demo))))
        yield ""
