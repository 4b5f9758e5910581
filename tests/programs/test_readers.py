"""What is read of a reply while it is being written is always a beginning of what its adapter makes of it."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oneturn.programs.stream_parsers import EndingCall, reader_for

SIGNATURE = dspy.Signature("question -> reasoning, answer")
TEXT = st.text(
    st.one_of(
        st.characters(codec="utf-8", exclude_categories=["Cs"]),
        st.sampled_from('"\\\n\r\t {}[]#<>&:,é🤝\u2028\x85\v'),
    ),
    max_size=30,
)
PIECES = st.sampled_from([1, 2, 3, 7, 1000])
HEADERS = ["[[ ## answer ## ]]", "[[ ## answer ## ]] at once", "[[ ## reasoning ## ]]", "[[ ## completed ## ]]"]
NO_HEADERS = ["[[", "[[ ## ", "[[ ## answer", "text", " [text](url)", "", " ", "\r", "\n", "\r\n", "\u2028", "a b"]
CHAT_PARTS = st.sampled_from([*HEADERS, *NO_HEADERS, "  [[ ## other ## ]] x"])


def read(adapter: dspy.Adapter, reply: str, size: int, **options: Any) -> dict[str, str]:
    reader = reader_for(adapter, ["reasoning", "answer"], **options)
    assert reader is not None
    texts = {"reasoning": "", "answer": ""}
    for start in range(0, len(reply), size):
        for field, text in reader.read(reply[start : start + size]):
            texts[field] += text
    return texts


def parsed(adapter: dspy.Adapter, reply: str) -> dict[str, Any] | None:
    try:
        fields: dict[str, Any] = adapter.parse(SIGNATURE, reply)
    except AdapterParseError as error:
        return error.parsed_result
    return fields


@pytest.mark.parametrize(
    "adapter", [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()], ids=lambda a: type(a).__name__
)
@settings(max_examples=150, deadline=None)
@given(answer=TEXT, reasoning=TEXT, size=PIECES)
def test_the_texts_of_a_reply_are_read_as_its_adapter_parses_them(
    adapter: dspy.Adapter, answer: str, reasoning: str, size: int
):
    if isinstance(adapter, dspy.XMLAdapter):  # XML can't hold control characters, and makes one of all line ends
        answer, reasoning = (json.dumps(text) for text in (answer, reasoning))
    reply = adapter.format_assistant_message_content(SIGNATURE, {"reasoning": reasoning, "answer": answer})
    fields = parsed(adapter, reply)
    assert fields is not None
    texts = read(adapter, reply, size)
    for name, text in texts.items():
        assert text == fields[name]


@settings(max_examples=500, deadline=None)
@given(lines=st.lists(CHAT_PARTS, max_size=12), size=PIECES)
@example(lines=["[[ ## answer ## ]]", "\n", "a", "\r", "\n", "b"], size=1)
@example(lines=["[[ ## answer ## ]]", "\n", "a", "\n", "[[ ## answer ## ]]", "\n", "b"], size=3)
def test_nothing_is_told_that_the_chat_adapter_would_not_say(lines: list[str], size: int):
    reply = "".join(lines)
    fields = parsed(dspy.ChatAdapter(), reply) or {}
    for name, text in read(dspy.ChatAdapter(), reply, size).items():
        assert str(fields.get(name, "")).startswith(text)


@settings(deadline=None)
@given(reply=st.one_of(TEXT, st.sampled_from(['{"answer": 3}', '["answer"]', "{", "<answer><b>x</b></answer>", "&&"])))
def test_a_reply_in_no_format_tells_nothing_and_breaks_nothing(reply: str):
    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter()):
        assert read(adapter, reply, 3) == {"reasoning": "", "answer": ""}
    read(dspy.XMLAdapter(), reply, 3)


def test_json_may_stand_in_a_fence():
    reply = '```json\n{"reasoning": "so", "answer": "4 \\u20ac"}\n```'
    assert read(dspy.JSONAdapter(), reply, 2)["answer"] == "4 €"


def test_other_adapters_are_not_read():
    assert reader_for(dspy.TwoStepAdapter(dspy.LM("openai/x")), ["answer"]) is None
    assert reader_for(None, ["answer"]) is None


ENDING = EndingCall("submit", "answer", "tool_calls")


@pytest.mark.parametrize(
    "calls",
    [
        {"tool_calls": [{"name": "submit", "args": {"n": 3, "answer": "4 euros"}}]},
        {"tool_calls": [{"name": "look", "args": {"answer": "no"}}, {"name": "submit", "args": {"answer": "4 euros"}}]},
        {"name": "submit", "args": {"answer": "4 euros"}},
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_answer_is_found_in_the_call_that_ends_the_run(calls: Any, size: int):
    section = f"[[ ## reasoning ## ]]\nso\n\n[[ ## tool_calls ## ]]\n{json.dumps(calls)}\n\n[[ ## completed ## ]]"
    assert read(dspy.ChatAdapter(), section, size, ending=ENDING) == {"reasoning": "so", "answer": "4 euros"}
    whole = json.dumps({"reasoning": "so", "tool_calls": calls})
    assert read(dspy.JSONAdapter(), whole, size, ending=ENDING) == {"reasoning": "so", "answer": "4 euros"}


def test_another_call_s_argument_is_no_answer():
    calls = {"tool_calls": [{"name": "look", "args": {"answer": "no"}}]}
    assert read(dspy.JSONAdapter(), json.dumps(calls), 3, ending=ENDING)["answer"] == ""
    assert reader_for(dspy.XMLAdapter(), ["answer"], ENDING) is None
