"""Bring a compiled state up to a program whose tools or descriptions have changed since."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dspy

from oneturn.programs.state.drift import changed_tools
from oneturn.programs.state.interface import Interface, instructions_sha256

# How dspy.ReAct and dspy.CodeAct write a tool into their instructions (dspy.Tool.__str__), and dspy.ReActV2 its names.
_TOOL_LINE = re.compile(
    r"^\(\d+\) (?P<tool>(?P<name>\S+?)(?:, whose description is <desc>.*</desc>\.|\.) It takes arguments .*)$"
)
_TOOL_NAMES = re.compile(r"^The available tools are: .*$", re.MULTILINE)


def splice(
    state: Mapping[str, Any], compiled: Interface, program: dspy.Module, current: Interface
) -> tuple[dict[str, Any], list[str]]:
    """The state as ``program`` can use it, and what else there is to know of it, in words.

    Instructions that the optimizer had left alone become the program's. In others, the lines of the tool list are
    brought up to date and the prose stays. Demos that call a tool that is gone, or takes other arguments, are left out.

    Args:
        state: the compiled state; it isn't changed.
        compiled: the interface of the program that was compiled.
        program: the uncompiled program as it is now.
        current: its interface.
    """
    spliced = copy.deepcopy(dict(state))
    unfit = changed_tools(compiled, current)
    gone = sorted(set(compiled.tools) - set(current.tools))
    notes: list[str] = []
    for name, predictor in program.named_predictors():
        saved = spliced[name]
        saved["signature"]["fields"] = _fields(saved, name, compiled, current, predictor.signature)
        untouched = compiled.predictors[name].instructions_sha256
        if instructions_sha256(saved["signature"]["instructions"]) == untouched:
            saved["signature"]["instructions"] = predictor.signature.instructions
        else:
            saved["signature"]["instructions"], told = _instructions(
                saved, predictor.signature.instructions, compiled, current
            )
            notes += told
        notes += _mentions(saved["signature"]["instructions"], gone)
        notes += _without_unfit_demos(saved, unfit)
    return spliced, notes


def _fields(
    saved: Mapping[str, Any], name: str, compiled: Interface, current: Interface, signature: type[dspy.Signature]
) -> list[dict[str, Any]]:
    """DSPy's state has the fields without their names, in order: put them in the program's, with what was reworded."""
    shape = compiled.predictors[name]
    by_name = dict(zip([*shape.inputs, *shape.outputs], saved["signature"]["fields"], strict=True))
    fresh = {field["name"]: field for field in _declared(signature)}
    reworded = {
        field
        for place, new in current.signatures.items()
        for field, told in new.fields.items()
        if place in compiled.signatures
        and field in compiled.signatures[place].fields
        and compiled.signatures[place].fields[field].description != told.description
    }
    return [
        {"prefix": field["prefix"], "description": field["description"]}
        for field in ((fresh if known in reworded else by_name)[known] for known in signature.fields)
    ]


def _declared(signature: type[dspy.Signature]) -> Iterator[dict[str, Any]]:
    for (name, _), dumped in zip(signature.fields.items(), signature.dump_state()["fields"], strict=True):
        yield {"name": name, **dumped}


def _instructions(
    saved: Mapping[str, Any], declared: str, compiled: Interface, current: Interface
) -> tuple[str, list[str]]:
    text = str(saved["signature"]["instructions"])
    if compiled.tools != current.tools:
        text = _with_tools(text, _tool_lines(declared), _reworded(compiled, current))
        if names := _TOOL_NAMES.search(declared):
            text = _TOOL_NAMES.sub(lambda _: names.group(), text)
    was = {place: shape.instructions.strip() for place, shape in compiled.signatures.items()}
    now = {place: shape.instructions.strip() for place, shape in current.signatures.items()}
    if was != now:
        return text, [
            "the instructions that the optimizer wrote are kept, without what was changed in the declared ones"
        ]
    return text, []


def _with_tools(text: str, wanted: Mapping[str, str], reworded: set[str]) -> str:
    """The text with the lines of exactly these tools, numbered anew; that of a tool that hasn't changed stays."""
    if not wanted:  # a module that tells the LM of its tools by other means
        return text
    lines = text.split("\n")
    listed = [index for index, line in enumerate(lines) if _TOOL_LINE.match(line)]
    kept = {
        match["name"]: match["tool"]
        for line in lines
        if (match := _TOOL_LINE.match(line)) and match["name"] not in reworded
    }
    block = [f"({number}) {kept.get(name, line)}" for number, (name, line) in enumerate(wanted.items(), start=1)]
    if not listed:
        return "\n".join([*lines, "", "The tools:", *block])
    rest = [line for index, line in enumerate(lines) if index not in listed]
    return "\n".join([*rest[: listed[0]], *block, *rest[listed[0] :]])


def _tool_lines(instructions: str) -> dict[str, str]:
    matches = (_TOOL_LINE.match(line) for line in instructions.split("\n"))
    return {match["name"]: match["tool"] for match in matches if match}


def _reworded(compiled: Interface, current: Interface) -> set[str]:
    """The tools that are told otherwise than before, by the names that a prompt has for them."""
    return _in_prompts(name for name, shape in current.tools.items() if compiled.tools.get(name) != shape)


def _in_prompts(tools: Iterable[str]) -> set[str]:
    """What prompts may call these tools: before a dot there may be a sub-module's place, or a part of the name."""
    return {called for tool in tools for called in (tool, tool.rpartition(".")[2])}


def _mentions(instructions: str, gone: list[str]) -> Iterator[str]:
    for tool in gone:
        if re.search(rf"(?<![\w.])(?:{'|'.join(map(re.escape, _in_prompts([tool])))})(?!\w)", instructions):
            yield f"the instructions still mention {tool!r}, which is no tool any more"


def _without_unfit_demos(saved: dict[str, Any], unfit: set[str]) -> Iterator[str]:
    names = _in_prompts(unfit)
    fit = [demo for demo in saved["demos"] if not names & set(_calls(demo))]
    if left_out := len(saved["demos"]) - len(fit):
        saved["demos"] = fit
        called = ", ".join(sorted(unfit))
        yield f"{left_out} of {left_out + len(fit)} demos are left out: they call {called} as it was"


def _calls(value: Any, key: str = "") -> Iterator[str]:
    """The tools that a demo calls, in whatever form a module keeps its calls."""
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
