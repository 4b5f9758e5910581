"""Correct streams pass; a change to any event of one breaks a rule."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentStreamEvent

from oneturn.conformance import Finding, Severity, check_stream

Event = dict[str, Any]
CITATION = {"type": "url_citation", "title": "Tides", "url": "tides.md", "start_index": 0, "end_index": 2}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1700000000.0,
    "model": "agent",
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
}
USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}


class Writer:
    """Writes correct streams in the form of OpenAI's API."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.output: list[Event] = []
        for name in ("response.created", "response.in_progress"):
            self.put(name, response={**RESPONSE, "status": "in_progress", "output": []})

    def put(self, name: str, /, **fields: Any) -> None:
        event = {"type": name, "sequence_number": len(self.events), **fields}
        self.events.append(copy.deepcopy(event))

    def of_item(self, name: str, /, **fields: Any) -> None:
        self.put(f"response.{name}", item_id=self.id, output_index=len(self.output), **fields)

    def added(self, kind: str, /, **fields: Any) -> None:
        self.id = f"{kind}_{len(self.output)}"
        self.item = {"type": kind, "id": self.id, "status": "in_progress", **fields}
        self.put("response.output_item.added", output_index=len(self.output), item=self.item)

    def done(self, **fields: Any) -> None:
        item = {**self.item, "status": "completed", **fields}
        self.put("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)

    def reasoning(self, pieces: list[str]) -> None:
        self.added("reasoning", summary=[])
        part = {"type": "summary_text", "text": "".join(pieces)}
        self.of_item("reasoning_summary_part.added", summary_index=0, part={**part, "text": ""})
        self.pieces_of("reasoning_summary_text", {"summary_index": 0}, pieces, text=part["text"])
        self.of_item("reasoning_summary_part.done", summary_index=0, part=part)
        self.done(summary=[part])

    def call(self, pieces: list[str], answered: bool = True) -> None:
        call_id, arguments = f"call_{len(self.output)}", json.dumps({"word": "".join(pieces)})
        self.added("function_call", call_id=call_id, name="look_up", arguments="")
        for piece in (arguments[:3], arguments[3:]):
            self.of_item("function_call_arguments.delta", delta=piece)
        self.of_item("function_call_arguments.done", arguments=arguments, name="look_up")
        self.done(arguments=arguments)
        if answered:
            self.added("function_call_output", call_id=call_id, output="meaning")
            self.done()

    def pieces_of(self, name: str, position: Event, pieces: list[str], **last: Any) -> None:
        for piece in pieces:
            self.of_item(f"{name}.delta", **position, delta=piece)
        self.of_item(f"{name}.done", **position, **last)

    def message(self, pieces: list[str], citations: int, refusal: list[str]) -> None:
        self.added("message", role="assistant", content=[])
        text = {"type": "output_text", "text": "".join(pieces), "annotations": [CITATION] * citations}
        self.of_item("content_part.added", content_index=0, part={**text, "text": "", "annotations": []})
        for piece in pieces:
            self.of_item("output_text.delta", content_index=0, delta=piece, logprobs=[])
        for index in range(citations):
            name = "output_text.annotation.added"
            self.of_item(name, content_index=0, annotation_index=index, annotation=CITATION)
        self.of_item("output_text.done", content_index=0, text=text["text"], logprobs=[])
        self.of_item("content_part.done", content_index=0, part=text)
        content: list[Event] = [text]
        if refusal:
            part = {"type": "refusal", "refusal": "".join(refusal)}
            self.of_item("content_part.added", content_index=1, part={**part, "refusal": ""})
            self.pieces_of("refusal", {"content_index": 1}, refusal, refusal=part["refusal"])
            self.of_item("content_part.done", content_index=1, part=part)
            content.append(part)
        self.done(content=content)

    def completed(self) -> list[Event]:
        self.put(
            "response.completed", response={**RESPONSE, "status": "completed", "output": self.output, "usage": USAGE}
        )
        return self.events

    def failed(self, *endings: str) -> list[Event]:
        error = {"code": "server_error", "message": "The agent failed."}
        for ending in endings:
            if ending == "error":
                self.put("error", param=None, **error)
            else:
                why = (
                    {"incomplete_details": {"reason": "max_output_tokens"}}
                    if ending.endswith("te")
                    else {"error": error}
                )
                response = {**RESPONSE, "status": ending.removeprefix("response."), "output": self.output, **why}
                self.put(ending, response=response)
        return self.events


def right_stream() -> list[Event]:
    writer = Writer()
    writer.reasoning(["I look ", "it up"])
    writer.call(["tide"])
    writer.message(["It ", "turns", "."], 2, ["No ", "more."])
    return writer.completed()


RIGHT = right_stream()

pieces = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4)
items = st.one_of(
    st.tuples(st.just("reasoning"), pieces),
    st.tuples(st.just("call"), pieces),
    st.tuples(st.just("message"), pieces, st.integers(0, 3), st.just([]) | pieces),
)
endings = st.sampled_from(
    [(), ("error",), ("response.failed",), ("error", "response.failed"), ("response.incomplete",)]
)


@st.composite
def right_streams(draw: st.DrawFn) -> list[Event]:
    writer = Writer()
    for name, *arguments in draw(st.lists(items, max_size=5)):
        getattr(writer, name)(*arguments)
    if ending := draw(endings):
        return writer.failed(*ending)
    return writer.completed()


@settings(max_examples=60, deadline=None)
@given(right_streams())
def test_correct_stream_passes(stream: list[Event]):
    assert check_stream(stream, answered=True) == []


def renumbered(events: list[Event]) -> list[Event]:
    """Renumber the events, so that the sequence numbers show no change."""
    return [{**event, "sequence_number": number} for number, event in enumerate(copy.deepcopy(events))]


def faults(events: list[Any]) -> list[Finding]:
    return [violation for violation in check_stream(events) if violation.severity is not Severity.note]


POSITIONS = range(len(RIGHT))


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: RIGHT[position]["type"])
def test_missing_event_is_reported(position: int):
    assert faults(renumbered(RIGHT[:position] + RIGHT[position + 1 :]))


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: RIGHT[position]["type"])
def test_duplicated_event_is_reported(position: int):
    twice = renumbered(RIGHT[: position + 1] + RIGHT[position:])
    if RIGHT[position]["type"] == "response.in_progress":  # a keep-alive
        assert [finding.check for finding in check_stream(twice)] == ["in-progress-again"]
    else:
        assert faults(twice)


# Pairs that may swap: two items or parts may overlap; an annotation may be sent with the text or after it.
OVERLAPS = {
    ("response.output_item.done", "response.output_item.added"),
    ("response.content_part.done", "response.content_part.added"),
    ("response.output_text.delta", "response.output_text.annotation.added"),
    ("response.output_text.annotation.added", "response.output_text.done"),
}


def swaps() -> Iterator[tuple[int, int]]:
    for one, other in itertools.combinations(POSITIONS, 2):
        if other - one > 1 or (RIGHT[one]["type"], RIGHT[other]["type"]) not in OVERLAPS:
            yield one, other


def test_swapped_events_are_reported():
    unreported = []
    for one, other in swaps():
        stream = list(RIGHT)
        stream[one], stream[other] = stream[other], stream[one]
        if not faults(renumbered(stream)):
            unreported.append((one, RIGHT[one]["type"], other, RIGHT[other]["type"]))
    assert unreported == []


def test_missing_event_leaves_a_sequence_gap():
    for position in POSITIONS[1:-1]:
        assert "sequence-gap" in {
            violation.check for violation in check_stream(RIGHT[:position] + RIGHT[position + 1 :])
        }


Path = tuple[str | int, ...]

# Fields that may change: they are sent once, so nothing contradicts them.
FREE = {"parallel_tool_calls", "cached_tokens", "cache_write_tokens", "reasoning_tokens"}


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    nested = [leaf for key, entry in entries for leaf in leaves(entry, (*path, key))]
    yield from nested or [path]


def harmless(path: Path, value: Any) -> bool:
    """Whether ``value`` is also valid at ``path`` of ``RIGHT``."""
    before = at(RIGHT, path)
    if path[-1] in FREE and type(value) is type(before):
        limit = USAGE["output_tokens" if path[-1] == "reasoning_tokens" else "input_tokens"]
        return not isinstance(value, int) or 0 <= value <= limit
    if path[1:] == ("name",) and value in (ABSENT, None):  # openai 3 drops the name from the event
        return True
    if RIGHT[int(path[0])]["type"] != "response.output_item.added":
        return False
    if path[1:] == ("item", "output"):  # not known yet
        return value in ("", [])
    # in openai's types, status is optional for most items
    return path[1:] == ("item", "status") and value in (ABSENT, None, "in_progress", "completed", "incomplete")


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


LEAVES = list(leaves(RIGHT))
ABSENT = object()
OTHERS = st.one_of(
    st.just(ABSENT),
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.text(max_size=6),
    st.just(["x"]),
    st.just({"a": 1}),
)


FIELDS = sorted(
    {str(step) for path in LEAVES for step in path if isinstance(step, str)} | {"error", "databricks_output"}
)
KINDS = [
    *sorted({event["type"] for event in RIGHT}),
    "error",
    "response.failed",
    "response.incomplete",
    "other",
    None,
    3,
]


def altered(path: Path, value: Any) -> list[Event]:
    stream = copy.deepcopy(RIGHT)
    holder = at(stream, path[:-1])
    if value is ABSENT:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return stream


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(LEAVES), OTHERS)
def test_changed_value_is_reported(path: Path, value: Any):
    before = at(RIGHT, path)
    same = value is not ABSENT and type(value) is type(before) and value == before
    if not same and not harmless(path, value):
        assert faults(altered(path, value)), (RIGHT[int(path[0])]["type"], path, before, value)


def position_of(kind: str, number: int = 0) -> int:
    return [position for position in POSITIONS if RIGHT[position]["type"] == f"response.{kind}"][number]


def doubled(kind: str, number: int = 0) -> list[Event]:
    position = position_of(kind, number)
    return renumbered(RIGHT[: position + 1] + RIGHT[position:])


def without(kind: str, number: int = 0) -> list[Event]:
    position = position_of(kind, number)
    return renumbered(RIGHT[:position] + RIGHT[position + 1 :])


def with_(value: Any, kind: str, number: int, *path: str | int) -> list[Event]:
    return altered((position_of(kind, number), *path), value)


# Changes to the correct stream, and exactly the rules that they break.
CHANGES: dict[str, tuple[list[Event], set[str]]] = {
    "created twice": (doubled("created"), {"created-misplaced", "in-progress-misplaced"}),
    "created with items": (with_([CITATION], "created", 0, "response", "output"), {"created-output"}),
    "counted from one": (
        [{**event, "sequence_number": event["sequence_number"] + 1} for event in RIGHT],
        {"sequence-start"},
    ),
    "another response": (with_("resp_2", "completed", 0, "response", "id"), {"response-id-changed"}),
    "another model": (with_("other", "completed", 0, "response", "model"), {"response-changed"}),
    "the status failed": (with_("failed", "completed", 0, "response", "status"), {"response-status"}),
    "done twice": (doubled("output_item.done", 3), {"item-done-twice"}),
    "not done": (without("output_item.done", 3), {"item-not-done", "terminal-output"}),
    "another id in the end": (with_("x", "output_item.done", 3, "item", "id"), {"item-id-changed", "terminal-output"}),
    "another call": (with_("x", "output_item.added", 1, "item", "call_id"), {"item-changed"}),
    "another tool": (with_("x", "function_call_arguments.done", 0, "name"), {"item-changed"}),
    "another position": (with_(9, "output_text.delta", 0, "output_index"), {"output-index"}),
    "another part": (
        with_(7, "refusal.delta", 0, "content_index"),
        {"part-not-added", "refusal-adds-up", "text-done-missing"},
    ),
    "a refusal lost": (without("refusal.delta"), {"refusal-adds-up"}),
    "a text lost": (without("output_text.delta"), {"text-adds-up"}),
    "arguments lost": (without("function_call_arguments.delta"), {"arguments-add-up"}),
    "arguments there before": (
        with_('{"word": "tide"}', "output_item.added", 1, "item", "arguments"),
        {"arguments-add-up"},
    ),
    "a summary lost": (without("reasoning_summary_text.delta"), {"summary-adds-up"}),
    "text done twice": (doubled("output_text.done"), {"delta-after-done"}),
    "text not done": (without("output_text.done"), {"text-done-missing"}),
    "a part not done": (without("content_part.done"), {"part-not-done"}),
    "a part done twice": (doubled("content_part.done"), {"part-order"}),
    "an annotation lost": (without("output_text.annotation.added", 1), {"annotations"}),
    "items lost in the end": (with_([], "completed", 0, "response", "output"), {"terminal-output"}),
    "a wrong sum": (with_(13, "completed", 0, "response", "usage", "total_tokens"), {"usage-adds-up"}),
    "no usage": (with_(None, "completed", 0, "response", "usage"), {"usage-missing"}),
    "a text that is a number": (with_(4, "output_text.delta", 0, "delta"), {"openai-types", "text-adds-up"}),
    "a field left out": (with_(ABSENT, "output_text.delta", 0, "logprobs"), {"openai-fields"}),
}


@pytest.mark.parametrize("case", CHANGES)
def test_change_breaks_the_expected_rules(case: str):
    stream, expected = CHANGES[case]
    assert {violation.check for violation in faults(stream)} == expected


def test_annotations_without_events_are_reported():
    stream = [event for event in RIGHT if not event["type"].endswith("annotation.added")]
    assert {violation.check for violation in faults(renumbered(stream))} == {"annotation-not-streamed"}


def test_text_without_deltas_is_reported():
    stream = [event for event in RIGHT if event["type"] != "response.output_text.delta"]
    assert {violation.check for violation in faults(renumbered(stream))} == {"text-not-streamed"}


@pytest.mark.parametrize(
    ("prefix", "field", "kind", "rule"),
    [
        ("response.mcp_call_arguments", "arguments", "mcp_call", "arguments-add-up"),
        ("response.custom_tool_call_input", "input", "custom_tool_call", "input-adds-up"),
        ("response.code_interpreter_call_code", "code", "code_interpreter_call", "input-adds-up"),
    ],
)
def test_other_call_inputs_must_add_up(prefix: str, field: str, kind: str, rule: str):
    def stream(last: str) -> list[Event]:
        writer = Writer()
        writer.added(kind, **{field: ""})
        for piece in ("{", last):
            writer.of_item(f"{prefix.removeprefix('response.')}.delta", delta=piece)
        writer.of_item(f"{prefix.removeprefix('response.')}.done", **{field: "{}"})
        writer.done(**{field: "{}"})
        return writer.completed()

    assert rule in {violation.check for violation in faults(stream("x"))}
    assert rule not in {violation.check for violation in faults(stream("}"))}


def test_items_left_open_by_a_failure_are_a_warning():
    writer = Writer()
    writer.added("message", role="assistant", content=[])
    [violation] = faults(writer.failed("error"))
    assert (violation.check, violation.severity) == ("item-left-open", Severity.warning)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from(["item_1", "message", "function_call"]),
    lambda nested: st.lists(nested, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), nested, max_size=5),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6)), max_size=6
    )
)
def test_checker_handles_any_stream(drawn: list[tuple[Any, Event]]):
    assert check_stream([{"type": kind, **fields} for kind, fields in drawn])


def test_events_may_be_models():
    models = [ResponsesAgentStreamEvent(**event) for event in RIGHT]
    assert check_stream(models) == []
    assert faults(models[:-1])
