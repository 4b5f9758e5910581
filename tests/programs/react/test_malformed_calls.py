"""Function calls as real servers send them: odd arguments, names, ids, chunks and endings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from oneturn import ReAct
from oneturn.core.steps import Answer, AnswerDelta, Thought
from oneturn.errors import ProgramError, RunError
from oneturn.programs.react.function_names import to_function_name
from tests.programs.react.chat_stub import Message, call_of, calls, chat_stub, message_of

STREAMING = pytest.mark.parametrize("streaming", [False, True])
ARGS = '{"query": "fee"}'
LOOK = calls(("search", {"query": "fee"}))
DONE = calls(("finish", {"answer": "4 euros"}))
LONG = "The fee is 4 euros, as the handbook says on its first page; it is paid once a year."


class Desk:
    """Tools that record their calls."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def search(self, query: str, limit: int = 3) -> str:
        """Search."""
        self.made.append(f"{query} {limit}")
        return f"The fee is 4 euros ({query})."

    def ping(self) -> str:
        """Ping."""
        self.made.append("ping")
        return "pong"


def run(
    replies: Sequence[str | Message], streaming: bool, signature: str = "question -> answer"
) -> tuple[Any, list[str], list[Any]]:
    """Return the prediction, the calls that were made, and the steps of a stream."""
    desk = Desk()
    program = ReAct(signature, tools=[desk.search, desk.ping], tool_calling="native")
    with chat_stub(*replies) as stub:
        program.set_lm(stub.lm())
        if not streaming:
            return program(question="?"), desk.made, []
        steps: list[Any] = list(program.steps(question="?"))
    return next(step.prediction for step in steps if isinstance(step, Answer)), desk.made, steps


@STREAMING
@pytest.mark.parametrize(
    "arguments",
    [
        '{"query": "fee"',
        json.dumps(ARGS),
        f"[{ARGS}]",
        "{'query': 'fee'}",
        f"```json\n{ARGS}\n```",
        f'{{"arguments": {ARGS}}}',
        f'{{"parameters": {json.dumps(ARGS)}}}',
        f'{{"name": "search", "arguments": {ARGS}}}',
        f"{{}}{ARGS}",
        f"{ARGS}{ARGS}",
        '{"Query": "fee"}',
    ],
)
def test_odd_arguments_are_read(arguments: str, streaming: bool):
    prediction, made, _ = run([message_of(call_of("search", arguments)), DONE], streaming)
    assert (prediction.answer, made) == ("4 euros", ["fee 3"])


@STREAMING
@pytest.mark.parametrize("arguments", ["", None, "null", "None", "[]", "{}", '""'])
def test_no_arguments_in_any_form(arguments: str | None, streaming: bool):
    assert run([message_of(call_of("ping", arguments)), DONE], streaming)[1] == ["ping"]


@STREAMING
@pytest.mark.parametrize(
    "name",
    [
        "functions.search",
        "functions.search:0",
        "default_api.search",
        "default_api:search",
        "search<|channel|>commentary",
        "Search",
        " search ",
    ],
)
def test_a_name_as_lms_write_it_is_the_tool(name: str, streaming: bool):
    ended = name.replace("search", "finish").replace("Search", "Finish")
    prediction, made, steps = run(
        [message_of(call_of(name, ARGS)), message_of(call_of(ended, {"answer": LONG}))], streaming
    )
    assert (prediction.answer, made) == (LONG, ["fee 3"])
    if streaming:
        assert len([step for step in steps if isinstance(step, AnswerDelta)]) > 3, "the answer streams"


@STREAMING
def test_ids_may_be_missing_or_the_same(streaming: bool):
    same = message_of(call_of("search", ARGS), call_of("search", {"query": "tea"}))
    none = message_of(call_of("search", ARGS, id=None), call_of("search", {"query": "tea"}, id=None, type=None))
    for reply in (same, none):
        assert sorted(run([reply, DONE], streaming)[1]) == ["fee 3", "tea 3"]


def test_calls_that_stream_with_the_same_index_are_apart():
    chunks = [
        {"tool_calls": [{**call_of("search", {"query": each}), "id": each, "index": 0}]} for each in ("fee", "tea")
    ]
    assert sorted(run([{"chunks": chunks}, DONE], True)[1]) == ["fee 3", "tea 3"]


def test_a_name_that_streams_again_and_again_is_one_call():
    start = {"index": 0, "id": "a", "function": {"name": "search", "arguments": ""}}
    more = [{**start, "function": {"name": "search", "arguments": piece}} for piece in ('{"query"', ': "fee"}')]
    assert run([{"chunks": [{"tool_calls": [each]} for each in (start, *more)]}, DONE], True)[1] == ["fee 3"]


@STREAMING
def test_a_call_without_a_name_is_asked_for_again(streaming: bool):
    assert run([message_of(call_of("", ARGS)), LOOK, DONE], streaming)[1] == ["fee 3"]


@STREAMING
@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls", "function_call", "eos", None])
def test_any_finish_reason_will_do(finish_reason: str | None, streaming: bool):
    replies = [{**reply, "finish_reason": finish_reason} for reply in (LOOK, DONE)]
    assert run(replies, streaming)[1] == ["fee 3"]


@STREAMING
@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 3, "completion_tokens": None}])
def test_usage_may_be_missing(usage: Any, streaming: bool):
    assert run([{**LOOK, "usage": usage}, {**DONE, "usage": usage}], streaming)[0].answer == "4 euros"


@STREAMING
@pytest.mark.parametrize("name", ["finish", "search"])
def test_a_cut_call_is_no_call(name: str, streaming: bool):
    cut = message_of(call_of(name, '{"answer": "The fee is 4 eur'), finish_reason="length")
    with pytest.raises(RunError, match="cut at its token limit") as error:
        run([LOOK, cut], streaming)
    assert error.value.code == "max_output_tokens"


@STREAMING
def test_a_complete_call_at_the_limit_counts(streaming: bool):
    assert run([{**DONE, "finish_reason": "length"}], streaming)[0].answer == "4 euros"


def test_what_was_written_of_a_cut_answer_is_yielded():
    for cut in (message_of(call_of("finish", f'{{"answer": "{LONG}')), {"role": "assistant", "content": LONG}):
        program = ReAct("question -> answer", tools=[], tool_calling="native")
        written = ""
        with chat_stub({**cut, "finish_reason": "length"}) as stub:
            program.set_lm(stub.lm())
            steps = program.steps(question="?")
            with contextlib.suppress(RunError):
                for step in steps:
                    written += step.text if isinstance(step, AnswerDelta) else ""
        assert written == LONG


# ---- plain text


def test_plain_text_streams_where_it_is_the_answer():
    for reply in (LONG, f"<think>Is it {{x}}?</think>\n\n{LONG}", f"{LONG}</s>"):
        prediction, _, steps = run([LOOK, reply], True)
        deltas = [step.text for step in steps if isinstance(step, AnswerDelta)]
        assert (prediction.answer, "".join(deltas)) == (LONG, LONG)
        assert len(deltas) > 5, "token by token"


def test_text_before_a_call_is_a_thought_and_the_answer_is_a_new_attempt():
    prediction, made, steps = run([{**LOOK, "content": LONG}, DONE], True)
    assert (prediction.answer, made) == ("4 euros", ["fee 3"])
    assert LONG in [step.text for step in steps if isinstance(step, Thought)]
    answer = [step for step in steps if isinstance(step, AnswerDelta) and step.attempt == 1]
    assert "".join(step.text for step in answer) == "4 euros"
    before = {**LOOK, "tool_calls": DONE["tool_calls"], "content": LONG}
    _, _, steps = run([before], True)
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta) and step.attempt == 1) == "4 euros"


@STREAMING
def test_text_where_other_outputs_are_required_is_never_the_answer(streaming: bool):
    done = calls(("finish", {"answer": "4 euros", "sure": True}))
    prediction, _, steps = run([LONG, done], streaming, "question -> answer, sure: bool")
    assert prediction.answer == "4 euros"
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta)) in ("", "4 euros")


# ---- names that APIs refuse


@STREAMING
def test_names_are_as_the_api_takes_them_and_mapped_back(streaming: bool):
    made: list[str] = []

    def tool(name: str) -> Any:
        def call() -> str:
            """Do it."""
            made.append(name)
            return "done"

        call.__name__ = name
        return call

    names = ["github.list issues", "x" * 80, "1st"]
    program = ReAct("question -> answer", tools=[tool(name) for name in names], tool_calling="native")
    sent = [to_function_name(name) for name in names]
    with chat_stub(calls(*((name, {}) for name in sent)), DONE) as stub:
        program.set_lm(stub.lm())
        if streaming:
            list(program.steps(question="?"))
        else:
            program(question="?")
    assert sorted(made) == sorted(names)
    assert [each["function"]["name"] for each in stub.requests[0]["tools"]] == [*sent, "finish"]
    assert all(len(name) <= 64 and name.replace("_", "").isalnum() for name in sent)
    assert [each["function"]["name"] for each in stub.requests[1]["messages"][2]["tool_calls"]] == sent


def test_names_that_would_be_the_same_are_refused():
    def search() -> str:
        """Search."""
        return ""

    def other() -> str:
        """Search."""
        return ""

    search.__name__, other.__name__ = "a.b", "a b"
    with pytest.raises(ProgramError, match=r"'a\.b' and 'a b' have the same name for an LM's API, 'a_b'"):
        ReAct("question -> answer", tools=[search, other])


@STREAMING
def test_an_unknown_name_goes_back_as_the_api_takes_it(streaming: bool):
    program = ReAct("question -> answer", tools=[], tool_calling="native")
    with chat_stub(message_of(call_of("no such/tool", {})), DONE) as stub:
        program.set_lm(stub.lm())
        if streaming:
            list(program.steps(question="?"))
        else:
            program(question="?")
    calling, result = stub.requests[1]["messages"][2:]
    assert calling["tool_calls"][0]["function"]["name"] == "no_such_tool"
    assert "there is no tool 'no such/tool'" in result["content"]
