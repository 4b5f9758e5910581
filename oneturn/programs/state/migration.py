"""Migrate a compiled state to a program whose tools or descriptions have changed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dspy

from oneturn.programs.state.drift import changed_tools
from oneturn.programs.state.interface import Interface, instructions_sha256

# The format of a tool in the instructions of dspy.ReAct and dspy.CodeAct (dspy.Tool.__str__), and of the tool names
# in those of dspy.ReActV2.
_TOOL_LINE = re.compile(
    r"^\(\d+\) (?P<tool>(?P<name>\S+?)(?:, whose description is <desc>.*</desc>\.|\.) It takes arguments .*)$"
)
_TOOL_NAMES = re.compile(r"^The available tools are: .*$", re.MULTILINE)


def splice(
    state: Mapping[str, Any], compiled: Interface, program: dspy.Module, current: Interface
) -> tuple[dict[str, Any], list[str]]:
    """Return the state migrated to ``program``, and notes on the result.

    Instructions that the optimizer didn't rewrite are replaced by the program's. In rewritten instructions, only the
    lines of the tool list are updated. Demos that call a removed tool, or one with changed arguments, are removed.

    Args:
        state: the compiled state; it isn't modified.
        compiled: the interface of the program that was compiled.
        program: the current program, uncompiled.
        current: the interface of ``program``.
    """
    spliced = copy.deepcopy(dict(state))
    changed = changed_tools(compiled, current)
    removed = sorted(set(compiled.tools) - set(current.tools))
    notes: list[str] = []
    for name, predictor in program.named_predictors():
        saved = spliced[name]
        saved["signature"]["fields"] = _fields(saved, name, compiled, current, predictor.signature)
        uncompiled = compiled.predictors[name].instructions_sha256
        if instructions_sha256(saved["signature"]["instructions"]) == uncompiled:
            saved["signature"]["instructions"] = predictor.signature.instructions
        else:
            saved["signature"]["instructions"], instruction_notes = _instructions(
                saved, predictor.signature.instructions, compiled, current
            )
            notes += instruction_notes
        notes += _mentions(saved["signature"]["instructions"], removed)
        notes += _remove_demos(saved, changed)
    return spliced, notes


def _fields(
    saved: Mapping[str, Any], name: str, compiled: Interface, current: Interface, signature: type[dspy.Signature]
) -> list[dict[str, Any]]:
    """Return the saved fields, which DSPy stores without names, in the program's order, with changed descriptions."""
    shape = compiled.predictors[name]
    by_name = dict(zip([*shape.inputs, *shape.outputs], saved["signature"]["fields"], strict=True))
    declared = {field["name"]: field for field in _declared(signature)}
    changed = {
        field
        for place, new in current.signatures.items()
        for field, field_shape in new.fields.items()
        if place in compiled.signatures
        and field in compiled.signatures[place].fields
        and compiled.signatures[place].fields[field].description != field_shape.description
    }
    return [
        {"prefix": field["prefix"], "description": field["description"]}
        for field in ((declared if name in changed else by_name)[name] for name in signature.fields)
    ]


def _declared(signature: type[dspy.Signature]) -> Iterator[dict[str, Any]]:
    for (name, _), dumped in zip(signature.fields.items(), signature.dump_state()["fields"], strict=True):
        yield {"name": name, **dumped}


def _instructions(
    saved: Mapping[str, Any], declared: str, compiled: Interface, current: Interface
) -> tuple[str, list[str]]:
    text = str(saved["signature"]["instructions"])
    if compiled.tools != current.tools:
        text = _with_tools(text, _tool_lines(declared), _changed_in_prompts(compiled, current))
        if names := _TOOL_NAMES.search(declared):
            text = _TOOL_NAMES.sub(lambda _: names.group(), text)
    before = {place: shape.instructions.strip() for place, shape in compiled.signatures.items()}
    after = {place: shape.instructions.strip() for place, shape in current.signatures.items()}
    if before != after:
        return text, ["the optimizer's instructions are kept, without the changes to the declared instructions"]
    return text, []


def _with_tools(text: str, tools: Mapping[str, str], changed: set[str]) -> str:
    """Return the text with the lines of exactly these tools, renumbered; lines of unchanged tools are kept."""
    if not tools:  # the module doesn't list its tools in the instructions
        return text
    lines = text.split("\n")
    listed = [index for index, line in enumerate(lines) if _TOOL_LINE.match(line)]
    unchanged = {
        match["name"]: match["tool"]
        for line in lines
        if (match := _TOOL_LINE.match(line)) and match["name"] not in changed
    }
    block = [f"({number}) {unchanged.get(name, line)}" for number, (name, line) in enumerate(tools.items(), start=1)]
    if not listed:
        return "\n".join([*lines, "", "The tools:", *block])
    rest = [line for index, line in enumerate(lines) if index not in listed]
    return "\n".join([*rest[: listed[0]], *block, *rest[listed[0] :]])


def _tool_lines(instructions: str) -> dict[str, str]:
    matches = (_TOOL_LINE.match(line) for line in instructions.split("\n"))
    return {match["name"]: match["tool"] for match in matches if match}


def _changed_in_prompts(compiled: Interface, current: Interface) -> set[str]:
    """Return the prompt names of the tools whose descriptions or arguments have changed."""
    return _prompt_names(name for name, shape in current.tools.items() if compiled.tools.get(name) != shape)


def _prompt_names(tools: Iterable[str]) -> set[str]:
    """Return the names of these tools in prompts: the part before a dot may be a sub-module's path, or of the name."""
    return {name for tool in tools for name in (tool, tool.rpartition(".")[2])}


def _mentions(instructions: str, removed: list[str]) -> Iterator[str]:
    for tool in removed:
        if re.search(rf"(?<![\w.])(?:{'|'.join(map(re.escape, _prompt_names([tool])))})(?!\w)", instructions):
            yield f"the instructions still mention {tool!r}, a removed tool"


def _remove_demos(saved: dict[str, Any], changed: set[str]) -> Iterator[str]:
    names = _prompt_names(changed)
    valid = [demo for demo in saved["demos"] if not names & set(_calls(demo))]
    if removed := len(saved["demos"]) - len(valid):
        saved["demos"] = valid
        tools = ", ".join(sorted(changed))
        yield f"{removed} of {removed + len(valid)} demos were removed: they call an earlier version of {tools}"


def _calls(value: Any, key: str = "") -> Iterator[str]:
    """Yield the tools that a demo calls, in all formats in which modules store calls."""
    if isinstance(value, Mapping):
        if "name" in value and "args" in value:
            yield str(value["name"])
        for inner_key, inner in value.items():
            yield from _calls(inner, str(inner_key))
    elif isinstance(value, list):
        for inner in value:
            yield from _calls(inner, key)
    elif isinstance(value, str) and (key == "next_tool_name" or key.startswith("tool_name_")):
        yield value
    elif isinstance(value, str):
        yield from re.findall(r"(?:\[\[ ## tool_name_\d+ ## \]\]|<tool_name_\d+>)\s*([^\s<]+)", value)
        yield from re.findall(r'"name":\s*"([^"]+)",\s*"args":', value) if "{" in value else ()
