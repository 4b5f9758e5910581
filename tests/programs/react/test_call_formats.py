"""Calls in the formats of LM families' chat templates, which servers pass on as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oneturn import ReAct
from oneturn.core.steps import Answer, AnswerDelta
from oneturn.programs.react.function_names import FunctionNames
from oneturn.programs.react.reply_parser import parse_reply
from oneturn.programs.react.reply_text import PlainAnswer, visible_text
from tests.programs.react.chat_stub import chat_stub

NAMES = FunctionNames({"search": ["query", "limit"], "finish": ["answer"], "ping": []})
ARGS = '{"query": "fee"}'
CALL = f'{{"name": "search", "arguments": {ARGS}}}'

FORMATS = {
    "qwen": f"<tool_call>\n{CALL}\n</tool_call>",
    "qwen coder": "<tool_call>\n<function=search>\n<parameter=query>\nfee\n</parameter>\n</function>\n</tool_call>",
    "qwen coder, cut": "<tool_call>\n<function=search>\n<parameter=query>\nfee\n",
    "llama 3": f"<function=search>{ARGS}</function>",
    "llama 3.1": f"<|python_tag|>{CALL.replace('arguments', 'parameters')}",
    "llama 4": '[search(query="fee")]',
    "llama 4, two": '[search(query="fee"), ping()]',
    "llama python": '<|python_tag|>search(query="fee")<|eom_id|>',
    "llama built-in": '<|python_tag|>search.call(query="fee")<|eom_id|>',
    "python, without names": '[search("fee")]',
    "gemma": '```tool_code\nsearch(query="fee")\n```',
    "gemini": '```tool_code\nprint(default_api.search(query="fee"))\n```',
    "mistral": f"[TOOL_CALLS][{CALL}]",
    "mistral 3": f"[TOOL_CALLS]search{ARGS}",
    "mistral 3.2": f"[TOOL_CALLS]search[CALL_ID]a1b2[ARGS]{ARGS}",
    "mistral, thinking": f"[THINK]Is it {{x}}?[/THINK][TOOL_CALLS]search[ARGS]{ARGS}",
    "deepseek": f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{ARGS}\n```<｜tool▁call▁end｜>",
    "deepseek 3.1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>search<｜tool▁sep｜>{ARGS}<｜tool▁call▁end｜>",
    "deepseek 4": (
        '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="search">\n'
        '<｜DSML｜parameter name="query" string="true">fee</｜DSML｜parameter>\n</｜DSML｜invoke>'
    ),
    "deepseek 4, closed wrongly": (
        '<｜DSML｜invoke name="search"><｜DSML｜parameter name="query" string="true">fee</｜DSML｜></｜DSML｜invoke>'
    ),
    "kimi": f"<|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>{ARGS}<|tool_call_end|>",
    "glm": "<tool_call>search\n<arg_key>query</arg_key>\n<arg_value>fee</arg_value>\n</tool_call>",
    "gpt-oss": (
        "<|channel|>analysis<|message|>Is it {x}?<|end|><|start|>assistant<|channel|>commentary to=functions.search "
        f"<|constrain|>json<|message|>{ARGS}<|call|>"
    ),
    "gpt-oss, to first": f"<|start|>assistant to=functions.search<|channel|>commentary json<|message|>{ARGS}",
    "gpt-oss, then an invented answer": (
        f"<|channel|>commentary to=functions.search<|message|>{ARGS}<|call|><|start|>assistant<|channel|>final"
        "<|message|>It is 9 euros."
    ),
    "claude": '<function_calls>\n<invoke name="search">\n<parameter name="query">fee</parameter>\n</invoke>',
    "react": f"Thought: I search.\nAction: search\nAction Input: {ARGS}",
    "dspy.ReAct": f"[[ ## next_tool_name ## ]]\nsearch\n\n[[ ## next_tool_args ## ]]\n{ARGS}",
    "dspy.ReAct, JSON": f'{{"next_thought": "x", "next_tool_name": "search", "next_tool_args": {ARGS}}}',
    "langchain": f'{{"thought": "x", "action": "search", "action_input": {ARGS}}}',
    "tool_name": f'{{"tool_name": "search", "tool_args": {ARGS}}}',
    "the tool as the key": f'{{"tool_call": {{"search": {ARGS}}}}}',
    "flat": '{"tool_call": {"name": "search", "query": "fee"}}',
    "a namespace": f'{{"tool_call": {{"name": "functions.search", "args": {ARGS}}}}}',
    "anthropic": f'{{"type": "tool_use", "id": "t", "name": "search", "input": {ARGS}}}',
    "function_call": f'{{"function_call": {{"name": "search", "arguments": {json.dumps(ARGS)}}}}}',
    "arguments wrapped": f'{{"tool_call": {{"name": "search", "args": {{"parameters": {ARGS}}}}}}}',
    "arguments in another case": '{"tool_call": {"name": "search", "args": {"Query": "fee"}}}',
}


@pytest.mark.parametrize("reply", FORMATS.values(), ids=FORMATS.keys())
def test_a_call_is_read(reply: str):
    call = parse_reply(reply, NAMES).call
    assert (call.name, call.args) == ("search", {"query": "fee"})


@pytest.mark.parametrize(
    ("reply", "name", "args"),
    [
        ("Thought: x\nAction: finish\nAction Input: It is 4.\nReally.", "finish", {"answer": "It is 4.\nReally."}),
        ('Action: finish\nAction Input: "It is 4."\nObservation: made up', "finish", {"answer": "It is 4."}),
        ("Thought: x\nAction: finish[It is 4.]", "finish", {"answer": "It is 4."}),
        ('{"action": "finish", "action_input": "It is 4."}', "finish", {"answer": "It is 4."}),
        ('{"thought": "x", "tool_call": {"name": "finish", "args": "It is 4."}}', "finish", {"answer": "It is 4."}),
        ('{"thought": "x", "tool_call": "search(\'fee\', limit=3)"}', "search", {"query": "fee", "limit": 3}),
    ],
)
def test_arguments_without_names_are_read(reply: str, name: str, args: dict[str, Any]):
    call = parse_reply(reply, NAMES).call
    assert (call.name, call.args) == (name, args)


@pytest.mark.parametrize(
    "reply",
    [
        'search("fee", 3, 4)',
        "Action: search[fee]",
        "Use it like this:\nsearch(query='fee')\nand so on.",
        "search(query) is a function, search(query='x') + 1 is none",
        "In Python, `search(query='x')` searches.",
        "<function=",
        "To: functions",
        '{"query": "fee"}',
        "[1] see (a) and <b>",
        "Action: none",
    ],
)
def test_text_that_only_mentions_a_call_is_none(reply: str):
    with pytest.raises(ValueError, match="calls a tool"):
        parse_reply(reply, NAMES)


EXAMPLES = [
    'Call it like this:\n```python\nsearch(query="fee")\n```\n',
    '```python\nsearch(query="fee")\n```\nThis searches.',
    f"Send this:\n```json\n{CALL}\n```",
    f"You may send {CALL} to search.",
    f"In Qwen's format:\n```xml\n<tool_call>\n{CALL}\n</tool_call>\n```",
]
MADE = [
    f"I search.\n{CALL}",
    f"I search.\n<tool_call>\n{CALL}\n</tool_call>\nIt is 4.",
    'I search.\n```tool_code\nsearch(query="fee")\n```',
    f"```json\n{CALL}\n```",
    '```python\nsearch(query="fee")\n```\n',
    f"{CALL}\n{CALL}",
]


@pytest.mark.parametrize("reply", EXAMPLES)
def test_an_answer_that_shows_a_call_makes_none(reply: str):
    with pytest.raises(ValueError, match="calls a tool"):
        parse_reply(reply, NAMES, examples=False)
    with chat_stub(reply) as stub:
        program = ReAct("question -> answer", tools=[search], tool_calling="native")
        program.set_lm(stub.lm())
        prediction = program(question="How do I search?")
    assert (prediction.answer, prediction.trajectory) == (reply.strip(), [])


@pytest.mark.parametrize("reply", [*FORMATS.values(), *MADE])
def test_a_call_that_is_made_is_no_example(reply: str):
    call = parse_reply(reply, NAMES, examples=False).call
    assert (call.name, call.args) == ("search", {"query": "fee"})


def test_values_keep_their_text():
    reply = (
        "<function=finish>\n<parameter=answer>\nline 1\n  line {2}\n</parameter>\n"
        '<parameter=more>[{"a": 1}]</parameter></function>'
    )
    assert parse_reply(reply, NAMES).call.args == {"answer": "line 1\n  line {2}", "more": [{"a": 1}]}


@pytest.mark.parametrize("reply", ["<｜tool▁call▁begin｜>" * 999, "search(" * 999, "to=a" * 999, "<function=a>" * 999])
def test_broken_markup_is_read_in_time(reply: str):
    with pytest.raises(ValueError, match="calls a tool"):
        parse_reply(reply, NAMES)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("<think>a {</think>\n\nIt is 4.", "It is 4."),
        ("<think>a</think><think>b</think>It is 4.", "It is 4."),
        ("[THINK]a[/THINK]It is 4.</s>", "It is 4."),
        ("<|channel>thought\na\n<channel|>It is 4.", "It is 4."),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>",
            "It is 4.",
        ),
        ("It is 4.<|im_end|>\n<|endoftext|>", "It is 4."),
        ("a < b and <b>bold</b>", "a < b and <b>bold</b>"),
    ],
)
def test_the_visible_text_has_no_reasoning_and_no_tokens(reply: str, text: str):
    assert visible_text(reply) == text
    plain = PlainAnswer()
    pieces = [plain.read(reply[:end], 0) for end in range(len(reply) + 1)]
    assert text.startswith("".join(pieces))


def search(query: str, limit: int = 3) -> str:
    """Search."""
    return f"The fee is {limit + 1} euros ({query})."


ENDED = {
    "qwen coder": "<tool_call><function=finish><parameter=answer>4 euros</parameter></function></tool_call>",
    "mistral": '[TOOL_CALLS]finish[ARGS]{"answer": "4 euros"}',
    "gpt-oss": '<|channel|>commentary to=functions.finish<|message|>{"answer": "4 euros"}<|call|>',
    "outputs alone": '{"answer": "4 euros"}',
    "outputs in a fence": 'Here:\n```json\n{"thought": "x", "answer": "4 euros"}\n```',
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("way", ["native", "schema", "text"])
@pytest.mark.parametrize("ended", ENDED.values(), ids=ENDED.keys())
def test_a_run_ends_with_such_a_call(ended: str, way: str, streaming: bool):
    program = ReAct("question -> answer", tools=[search], tool_calling=way)
    with chat_stub(FORMATS["kimi"], ended) as stub:
        program.set_lm(stub.lm())
        if not streaming:
            assert program(question="?").answer == "4 euros"
            assert len(stub.requests) == 2
            return
        steps: list[Any] = list(program.steps(question="?"))
    assert next(step for step in steps if isinstance(step, Answer)).prediction.answer == "4 euros"
    last = max(step.attempt for step in steps if isinstance(step, AnswerDelta))
    assert "".join(step.text for step in steps if isinstance(step, AnswerDelta) and step.attempt == last) == "4 euros"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("way", ["native", "schema", "text"])
def test_a_call_that_a_server_takes_for_reasoning_is_read(way: str, streaming: bool):
    program = ReAct("question -> answer", tools=[search], tool_calling=way)
    look = {"role": "assistant", "content": None, "reasoning_content": f"I search.\n{FORMATS['qwen']}"}
    with chat_stub(*[look] * 2, *[ENDED["mistral"]] * 2) as stub:
        program.set_lm(stub.lm())
        prediction = (
            next((step.prediction for step in program.steps(question="?") if isinstance(step, Answer)), None)
            if streaming
            else program(question="?")
        )
    assert prediction is not None
    assert prediction.answer == "4 euros"
    assert "The fee is 4 euros (fee)." in json.dumps(stub.requests[-1]["messages"])
