"""Replies as LMs without a grammar write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oneturn.programs.react.reply_parser import ParsedCall, PartialStep, parse_reply

SEARCH: dict[str, Any] = {"thought": "look", "tool_call": {"name": "search", "args": {"query": "fees"}}}
FINISH: dict[str, Any] = {"thought": "done", "tool_call": {"name": "finish", "args": {"answer": "if (x) { [1]; }"}}}
STEP = json.dumps(SEARCH)
END = json.dumps(FINISH)
CALL = ParsedCall("search", {"query": "fees"})


@pytest.mark.parametrize(
    "reply",
    [
        STEP,
        f"Step [1]: I search for {{fees}}.\n{STEP}",
        f"According to [1] {{see}} and {{'a': 1}}:\n{STEP}",
        f"```json\n{STEP}\n```",
        f"<think>Maybe {END}? No.</think>\n{STEP}",
        f"<thinking>a {{ b</thinking>{STEP}",
        f"The template opened the tag {{}}.</think>\n{STEP}",
        f"[{STEP}, {END}]",
        f"{STEP}\n\nResult: The fee is 9 euros.\n\n{END}",
        f"{STEP}{END}",
        str(SEARCH),
        '{"tool_call": {"name": "search", "args": "{\\"query\\": \\"fees\\"}"}}',
        '{"tool_call": "{\\"name\\": \\"search\\", \\"args\\": {\\"query\\": \\"fees\\"}}"}',
        '{"tool_call": "search", "args": {"query": "fees"}}',
        '{"name": "search", "parameters": {"query": "fees"}}',
        '{"name": "search", "arguments": "{\\"query\\": \\"fees\\"}"}',
        '<tool_call>\n{"name": "search", "arguments": {"query": "fees"}}\n</tool_call>',
        '{"tool_calls": [{"function": {"name": "search", "arguments": "{\\"query\\": \\"fees\\"}"}}]}',
        "{thought: 'it is', tool_call: {name: 'search', args: {query: 'fees'}}}",
        STEP[:-1],
        STEP[:-2],
    ],
)
def test_the_first_step_is_read(reply: str):
    assert parse_reply(reply).call == CALL


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "It is 4 euros.",
        "see {this}",
        '{"answer": 4}',
        '{"tool_call": "finish"}',
        '{"tool_call": {"args": {}}}',
        "{" * 5000,
    ],
)
def test_a_reply_without_a_call_is_refused(reply: str):
    with pytest.raises(ValueError, match="no JSON object that calls a tool"):
        parse_reply(reply)


def test_values_survive_odd_notation():
    args = parse_reply(
        "{'thought': \"it's {\", 'tool_call': {'name': 'finish', 'args': {'a': None, 'b': True}}}"
    ).call.args
    assert args == {"a": None, "b": True}
    assert parse_reply('{"tool_call": {"name": "f", "args": {"n": 82_461_110}}}').call.args == {"n": 82461110}
    assert parse_reply('{"tool_call": {"name": "f", "args": {"n": "a\nb"}}}').call.args == {"n": "a\nb"}
    assert parse_reply('{"tool_call": {"name": "f", "args": null}}').call.args == {}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r'"C:\apps\data\x41"', r"C:\apps\data\x41"),
        (r'"match \d+\bword"', r"match \d+\bword"),
        (r'"use \alpha and \vec{x}"', r"use \alpha and \vec{x}"),
        (r'"a \"b\" \u00e9\n\d"', 'a "b" é\n\\d'),
        (r'"it\'s C:\\new"', "it's C:\\new"),
        (r"'it\'s C:\apps'", r"it's C:\apps"),
    ],
)
def test_a_backslash_that_nobody_escaped_is_one(written: str, value: str):
    assert parse_reply(f'{{"name": "finish", "args": {{"a": {written}}}}}').call.args == {"a": value}


def test_a_step_tells_whether_it_is_complete():
    assert parse_reply(f"{STEP} and then").complete
    assert not parse_reply(STEP[:-10]).complete


def test_parallel_calls_are_read():
    assert parse_reply(json.dumps({**SEARCH, "parallel_calls": [SEARCH["tool_call"]]})).parallel == (CALL,)


@pytest.mark.parametrize(
    "reply", [END, f"```json\n{END}\n```", f"See [1] {{x}}: {END}", f"<think>{STEP}</think>{END}", f"{END}{STEP}"]
)
def test_a_reply_is_read_while_it_is_written(reply: str):
    partial = PartialStep()
    answers = [
        ((partial.read(reply[:end]) or {}).get("tool_call", {}).get("args") or {}).get("answer", "")
        for end in range(len(reply) + 1)
    ]
    answer = FINISH["tool_call"]["args"]["answer"]
    assert answers[-1] == answer
    assert all(answer.startswith(each) for each in answers)
    assert len(set(answers)) > 10, "token by token"


def test_arguments_as_json_text_are_read_while_they_are_written():
    reply = '{"tool_call": {"name": "finish", "args": "{\\"answer\\": \\"It is 4"'
    step = PartialStep().read(reply)
    assert step is not None
    assert step["tool_call"]["args"] == {"answer": "It is 4"}
