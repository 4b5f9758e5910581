"""The terminal output of a run."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest
from dspy.utils.exceptions import LMServerError
from mlflow.entities import Document
from pydantic import BaseModel
from rich.console import Console

import oneturn
from oneturn.config import LMConfig
from oneturn.errors import EndpointError, LMUnavailableError
from oneturn.lm import build_lm
from oneturn.lm.failures import describe_failure
from oneturn.responses.reply import ApprovalRequest, read_reply
from oneturn.serving.outputs import output_table, reply_json
from oneturn.serving.terminal import Renderer, ask, ask_endpoint, describe_approval, visible
from oneturn.testing import ScriptedLM, call, finish, sections


class Ask(dspy.Signature):
    """Answer with the tool's result."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


def search(words: str) -> list[Document]:
    """Find passages."""
    return [
        Document(page_content="The tide turns\ntwice a day.", metadata={"title": "Tides", "doc_uri": "t.md"}, id="t")
    ]


def adapter(*replies: Any) -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct(Ask, tools=[search])
    program.set_lm(ScriptedLM(*replies))
    return oneturn.ResponsesAdapter(program)


def text_console(**options: Any) -> Console:
    return Console(file=io.StringIO(), width=80, **options)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\d+\.\d s", "0.0 s", console.file.getvalue())


RUN = (call("search", "I look it up", words="tide"), finish("Found", answer="Twice a day.", citations=["t"]))


def test_a_run_is_shown_with_its_tools_its_sources_and_its_cost():
    console = text_console()
    reply = ask(adapter(*RUN), "How often?", console=console)
    lines = written(console).splitlines()
    assert lines[:-1] == [
        "I look it up",
        '→ search {"words": "tide"}',
        "← [t] The tide turns twice a day.",
        "Found",
        "Twice a day.",
        "[1] Tides (t.md)",
    ]
    assert re.fullmatch(r"2 LM calls, [\d,]+ tokens read, \d+ written, 0.0 s", lines[-1])
    assert reply.text == "Twice a day."


def test_cached_input_is_shown():
    usage = {"input_tokens": 1200, "input_tokens_details": {"cached_tokens": 1000}, "output_tokens": 20}
    completed = {"type": "response.completed", "response": {"usage": usage}}
    console = text_console()
    Renderer(console).finish(read_reply([completed]))
    assert written(console) == "1,200 tokens read (1,000 of them cached), 20 written, 0.0 s\n"


def test_a_served_agent_has_the_same_output():
    local, remote = text_console(), text_console()
    ask(adapter(*RUN), "How often?", console=local)
    with oneturn.running_server(adapter(*RUN)) as url:
        ask_endpoint(url, "How often?", console=remote)
    assert written(remote) == written(local).replace("2 LM calls, ", "")


def test_only_a_terminal_gets_dim_text():
    plain, terminal = text_console(), text_console(force_terminal=True)
    for console in (plain, terminal):
        ask(adapter(*RUN), "How often?", console=console)
    assert "\x1b" not in written(plain)
    assert re.sub(r"\x1b\[\d+m", "", written(terminal)) == written(plain)
    assert "\x1b[2mI look it up\x1b[0m" in written(terminal)
    assert "\nTwice a day.\n" in written(terminal)


def test_a_long_result_is_truncated_and_a_long_answer_is_not():
    console = text_console()
    shown = Renderer(console)
    shown({"type": "response.output_item.done", "item": {"type": "function_call_output", "output": "a b\n" * 100}})
    shown({"type": "response.output_text.delta", "delta": "word " * 100})
    shown({"type": "response.output_item.done", "item": {"type": "message", "status": "completed", "content": []}})
    result, answer = written(console).splitlines()
    assert len(result) == 80
    assert result.endswith("…")
    assert answer == "word " * 100


def test_control_characters_and_markup_have_no_effect():
    console = text_console(force_terminal=True)
    Renderer(console)({"type": "response.output_text.delta", "delta": "\x1b[2J[red]\r\x07[/red] ok"})
    assert written(console) == "[2J[red][/red] ok"


def test_a_message_without_deltas_is_shown():
    console = text_console()
    message = {"type": "message", "status": "completed", "content": [{"type": "output_text", "text": "All at once."}]}
    Renderer(console)({"type": "response.output_item.done", "item": message})
    assert written(console) == "All at once.\n"


def test_an_abandoned_message_is_marked_incomplete():
    console = text_console()
    shown = Renderer(console)
    shown({"type": "response.output_text.delta", "delta": "It is"})
    shown({"type": "response.output_item.done", "item": {"type": "message", "status": "incomplete", "content": []}})
    assert written(console) == "It is\n(incomplete)\n"


def test_progress_of_tools_and_nested_agents_is_shown():
    def look_up(word: str) -> str:
        """Look a word up."""
        oneturn.progress("turning pages", 0.5)
        return "a meaning"

    inner = oneturn.ReAct("question -> answer", tools=[look_up])
    inner.set_lm(ScriptedLM(call("look_up", "a rare word", word="tide"), finish("so", answer="The sea moves.")))
    outer = oneturn.ReAct("question -> answer", tools=[look_up, oneturn.agent_tool(inner, "expert", "Knows words.")])
    calls = (call("look_up", "", word="moon"), call("expert", "I ask", question="What is a tide?"))
    outer.set_lm(ScriptedLM(*calls, finish("Now", answer="A movement.")))
    console = text_console()
    ask(oneturn.ResponsesAdapter(outer), "What is it?", console=console)
    assert written(console).splitlines()[:-1] == [
        '→ look_up {"word": "moon"}',
        "… turning pages (50%)",
        "← a meaning",
        "I ask",
        '→ expert {"question": "What is a tide?"}',
        "  a rare word",
        '  → look_up {"word": "tide"}',
        "… look_up: turning pages (50%)",
        "  ← a meaning",
        "  so",
        "  The sea moves.",
        "← The sea moves.",
        "Now",
        "A movement.",
    ]


class Shop:
    """An agent with a refund tool that needs approval, and the refunds paid."""

    def __init__(self) -> None:
        self.paid: list[float] = []

    def adapter(self) -> oneturn.ResponsesAdapter:
        def refund(euros: float) -> str:
            """Give money back."""
            self.paid.append(euros)
            return "It is on its way."

        program = oneturn.ReAct("question -> answer", tools=[oneturn.tool(refund, approval=True)])
        refund_call = call("refund", "The customer is right", euros=200)
        program.set_lm(ScriptedLM(refund_call, finish(answer="Done.")))
        return oneturn.ResponsesAdapter(program, approvals=oneturn.Approvals("0123456789abcdef" * 2))


@pytest.mark.parametrize("approve", [True, False])
def test_the_run_resumes_with_the_person_s_decision(approve: bool):
    shop, console, names = Shop(), text_console(), []

    def decide(request: ApprovalRequest) -> bool:
        names.append((request.name, request.arguments))
        return approve

    reply = ask(shop.adapter(), "Refund it", approve=decide, console=console)
    assert names == [("refund", '{"euros": 200}')]
    assert shop.paid == ([200] if approve else [])
    assert reply.text == "Done."
    assert "? refund needs your approval:\n    euros: 200\n" in written(console)


ARGUMENTS = {
    "account": "x" * 300,
    "note": "fine\x1b[2K\r\nnothing\u202e\u200b\x9b\u2028",
    "\x1b]0;name\x07": None,
    "lines": [{"cup": 2.5}, "naïve 🤝"],
}


@pytest.mark.parametrize("width", [20, 80])
def test_an_approval_shows_every_argument_in_full_with_control_characters_visible(width: int):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    item = {"type": "mcp_approval_request", "name": "pay\x1b[8m", "arguments": json.dumps(ARGUMENTS)}
    Renderer(console)({"type": "response.output_item.done", "item": item})
    assert written(console).splitlines() == [
        "? pay\\u001b[8m needs your approval:",
        f'    account: "{"x" * 300}"',
        '    note: "fine\\u001b[2K\\r\\nnothing\\u202e\\u200b\\u009b\\u2028"',
        "    \\u001b]0;name\\u0007: null",
        '    lines: [{"cup": 2.5}, "naïve 🤝"]',
    ]


@pytest.mark.parametrize("arguments", ['{"euros": 5, "euros": 3000}', "[1]", "\x1b[2J", '{"euros": NaN}'])
def test_arguments_that_are_no_strict_object_are_shown_as_they_are(arguments: str):
    _, line = describe_approval("pay", arguments)
    assert line == f"    {visible(arguments)}"


def test_a_call_without_arguments_says_so():
    assert describe_approval("close", "{}")[1:] == ["    (no arguments)"]


def test_calls_of_a_served_agent_can_be_approved():
    shop = Shop()
    with oneturn.running_server(shop.adapter()) as url:
        assert ask_endpoint(url, "Refund it", console=text_console()).approvals[0].name == "refund"
    with oneturn.running_server(shop.adapter()) as url:
        assert ask_endpoint(url, "Refund it", approve=lambda request: True, console=text_console()).text == "Done."
    assert shop.paid == [200]


class Line(BaseModel):
    name: str
    euros: float


class Receipt(dspy.Signature):
    """Read a receipt."""

    receipt: str = dspy.InputField()
    shop: str = dspy.OutputField()
    lines: list[Line] = dspy.OutputField()
    tags: list[str] = dspy.OutputField()
    paid: bool = dspy.OutputField()


OUTPUTS = {
    "shop": "Corner \x1b[2J[red]",
    "lines": [{"name": "tea", "euros": 2.5}, {"name": "cake", "euros": 4}],
    "tags": [],
    "paid": True,
}


def reader() -> oneturn.ResponsesAdapter:
    """A program whose outputs are all data: it has no answer."""
    outputs = "receipt -> lines: list[Line], tags: list[str], paid: bool"
    program = dspy.Predict(dspy.Signature(outputs, custom_types={"Line": Line}))
    program.set_lm(ScriptedLM(sections(**{name: OUTPUTS[name] for name in ("lines", "tags", "paid")})))
    return oneturn.ResponsesAdapter(program)


def test_outputs_of_a_program_without_an_answer_are_a_table():
    console = text_console(force_terminal=True, color_system=None)
    ask(reader(), "tea, cake", console=console)
    assert [line.split() for line in written(console).splitlines()[:-1]] == [
        ["lines", "name", "euros"],
        ["tea", "2.5"],
        ["cake", "4.0"],
        ["tags", "none"],
        ["paid", "true"],
    ]


def test_other_outputs_are_shown_below_the_answer_without_control_characters():
    program = dspy.Predict(Receipt)
    program.set_lm(ScriptedLM(sections(**OUTPUTS)))
    console = text_console()
    ask(oneturn.ResponsesAdapter(program), "tea, cake", console=console)
    answer, *others = written(console).splitlines()
    assert answer == "Corner [2J[red]"
    assert [line.split()[0] for line in others[:-1]] == ["lines", "tea", "cake", "tags", "paid"]


def test_outputs_that_are_data_of_data_are_shown():
    value = {"who": {"name": "Ada\x1b[2J", "roles": ["x" * 40, "y" * 40]}, "grid": [[1, 2], [3]], "empty": None}
    console = text_console()
    console.print(output_table(value))
    lines = [line.strip().split(maxsplit=1) for line in written(console).splitlines()]
    assert lines == [
        ["who", "name   Ada\\u001b[2J"],
        ["roles", f"• {'x' * 40}"],
        ["•", "y" * 40],
        ["grid", "1, 2"],
        ["3"],
        ["empty", "null"],
    ]


def test_a_console_of_its_own_has_the_answer_only():
    console, notes = text_console(), text_console()
    ask(adapter(*RUN), "How often?", console=console, notes=notes)
    assert written(console) == "Twice a day.\n"
    assert written(notes).splitlines()[:-1] == [
        "I look it up",
        '→ search {"words": "tide"}',
        "← [t] The tide turns twice a day.",
        "Found",
        "[1] Tides (t.md)",
    ]


def test_a_reply_is_one_json_object():
    reply = ask(adapter(*RUN), "How often?", console=text_console())
    values = json.loads(reply_json(reply, is_local=True))
    usage = values.pop("usage")
    assert values == {
        "answer": "Twice a day.",
        "outputs": {"answer": "Twice a day.", "citations": ["t"]},
        "sources": [{"title": "Tides", "url": "t.md"}],
        "approvals": [],
        "trace_id": None,
    }
    assert (usage["lm_calls"], usage["input_tokens"] > 0) == (2, True)
    structured = json.loads(reply_json(ask(reader(), "tea", console=text_console()), is_local=False))
    assert (structured["answer"], structured["outputs"]["lines"][0]) == (None, {"name": "tea", "euros": 2.5})
    assert "lm_calls" not in structured["usage"]


@pytest.mark.usefixtures("traced")
def test_a_reply_of_this_process_has_the_id_of_its_trace():
    served = adapter(*RUN)
    reply = ask(served, "How often?", console=text_console())
    assert reply.trace_id is not None
    assert mlflow.get_trace(reply.trace_id).info.trace_id == reply.trace_id


def test_a_failed_run_raises_the_reason():
    console = text_console()
    with pytest.raises(EndpointError) as caught:
        ask(adapter(), "How often?", custom_inputs={"colour": "red"}, console=console)
    assert str(caught.value) == "custom_inputs has an unknown field 'colour'; known: question."
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai/x", "OPENAI_API_KEY"),
        ("anthropic/x", "ANTHROPIC_API_KEY"),
        ("gemini/x", "GEMINI_API_KEY"),
        ("groq/x", "GROQ_API_KEY"),
        ("deepseek/x", "DEEPSEEK_API_KEY"),
        ("azure/x", "AZURE_OPENAI_ENDPOINT"),
    ],
)
def test_a_missing_key_is_named_in_a_line(model: str, variable: str, monkeypatch: pytest.MonkeyPatch):
    for name in (variable, "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    program = oneturn.ReAct(Ask, tools=[])
    program.set_lm(dspy.LM(model, num_retries=0))
    with pytest.raises(LMUnavailableError, match=f"^The LM {model} can't be used: .*{variable}") as raised:
        ask(oneturn.ResponsesAdapter(program), "How often?", console=text_console())
    assert "\n" not in str(raised.value)


def test_a_missing_key_that_the_provider_s_error_does_not_name_is_added(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TOGETHERAI_API_KEY", raising=False)
    text = describe_failure(LMServerError("[x] refused\nTo fix: this"), dspy.LM("together_ai/x"))
    assert text == "The LM together_ai/x can't be used: refused. TOGETHERAI_API_KEY isn't set in the environment."


def test_missing_databricks_credentials_name_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CONFIG_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    program = oneturn.ReAct(Ask, tools=[])
    program.set_lm(build_lm(LMConfig(model="databricks/claude")))
    with pytest.raises(LMUnavailableError, match=r"no credentials.* DATABRICKS_HOST and DATABRICKS_TOKEN"):
        ask(oneturn.ResponsesAdapter(program), "How often?", console=text_console())


def test_a_client_of_a_server_is_not_told_the_provider_s_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    program = oneturn.ReAct(Ask, tools=[])
    program.set_lm(dspy.LM("openai/x", num_retries=0))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url, pytest.raises(EndpointError) as raised:
        ask_endpoint(url, "How often?", console=text_console())
    assert "OPENAI_API_KEY" not in str(raised.value)
