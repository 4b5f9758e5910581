"""Query an agent in the terminal and show the run as it happens."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import mlflow
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest
from rich.console import Console

from oneturn.agent import Agent
from oneturn.config.tracking import use_tracking
from oneturn.core.serialization import read_json
from oneturn.core.terminal import visible
from oneturn.core.usage import track_usage
from oneturn.lm.failures import explained_failures
from oneturn.programs import guarded_tools
from oneturn.responses.call_items import MCP_CALL, FunctionCallEvents, output_text
from oneturn.responses.client import input_items, load_libraries, query
from oneturn.responses.event_stream import DONE, Event
from oneturn.responses.reply import ApprovalRequest, Reply, Source, read_reply, text_in
from oneturn.serving.outputs import other_outputs, output_table
from oneturn.serving.server import warm_up
from oneturn.tools.approvals import Approvals

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # text must not control the terminal

Approve = Callable[[ApprovalRequest], bool]
"""Called with each tool call that needs a person's approval; returns whether the agent may make it."""


def ask(
    agent: Agent | ResponsesAgent,
    question: str,
    *,
    custom_inputs: Mapping[str, Any] | None = None,
    approve: Approve | None = None,
    console: Console | None = None,
    notes: Console | None = None,
) -> Reply:
    """Ask ``agent`` one question in this process, through its serving adapter, and show the run.

    Args:
        agent: the agent, or a ``ResponsesAgent``.
        question: the question.
        custom_inputs: the program's other inputs.
        approve: decides on each call that needs a person's approval; ``None`` returns the reply with its ``approvals``.
        console: the console to write to; ``None`` for standard output.
        notes: the console for everything but the answer: thoughts, tool calls, other outputs, sources and costs.
            ``None`` for ``console``; or for standard error, if that is standard output and no terminal.

    Returns:
        The last reply, with the usage of its LM calls and the id of its trace.

    Raises:
        ConfigError: the key that signs approvals is configured, and missing or too weak.
        EndpointError: the run ended without an answer.
        LMUnavailableError: it ended because of its LM; the message names a missing key's environment variable.
    """
    responder = _responder(agent)
    renderer = _renderer(console, notes)  # it measures the time from here

    def send(items: list[Mapping[str, Any]]) -> Reply:
        body = {"input": items, "custom_inputs": dict(custom_inputs or {})}
        before = mlflow.get_last_active_trace_id()
        with track_usage() as tracker, explained_failures():
            stream = responder.predict_stream(ResponsesAgentRequest.model_validate(body))
            reply = read_reply(chain((event.model_dump() for event in stream), [DONE]), renderer, items)
        renderer.finish(reply, lm_calls=tracker.usage.lm_calls)
        after = mlflow.get_last_active_trace_id()
        return replace(reply, usage=tracker.usage, trace_id=reply.trace_id or (after if after != before else None))

    return _answer_approvals(send, question, approve)


def ask_endpoint(
    url: str,
    question: str,
    *,
    custom_inputs: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    approve: Approve | None = None,
    console: Console | None = None,
    notes: Console | None = None,
) -> Reply:
    """Query a served agent with ``oneturn.query`` and show the run as ``ask`` does."""
    load_libraries()
    renderer = _renderer(console, notes)  # it measures the time from here

    def send(items: list[Mapping[str, Any]]) -> Reply:
        reply = query(url, items, custom_inputs=custom_inputs, api_key=api_key, on_event=renderer)
        renderer.finish(reply)
        return reply

    return _answer_approvals(send, question, approve)


def _answer_approvals(
    send: Callable[[list[Mapping[str, Any]]], Reply], question: str, approve: Approve | None
) -> Reply:
    reply = send(input_items(question))
    while reply.approvals and approve is not None:
        reply = send(reply.answering(approve(reply.approvals[0])))
    return reply


def _renderer(console: Console | None, notes: Console | None) -> Renderer:
    if console is None:
        console = Console()
        if notes is None and not console.is_terminal:
            notes = Console(stderr=True)
    return Renderer(console, notes)


class Renderer:
    """Shows Responses events: call it with each event, then call ``finish`` with the reply.

    Thoughts, tools and costs are dim, the answer isn't. If the output isn't a terminal, it is plain text. Outputs
    besides the answer, and those of a program without an answer, are shown as tables.

    Args:
        console: the console for the answer.
        notes: the console for everything else; ``None`` for the same one. With a console of its own, the answer isn't
            streamed: nothing but the complete answer is written to ``console``.
    """

    def __init__(self, console: Console, notes: Console | None = None):
        self._console = console
        self._notes = notes or console
        self._separate = notes is not None
        self._started = time.perf_counter()
        self._streamed = False  # whether deltas of the open message were shown
        self._held = ""  # text that may be the outputs of a program without an answer, as JSON
        self._calls = FunctionCallEvents()

    def __call__(self, event: Event) -> None:
        for each in self._calls.read(event):
            self._show(each)

    def _show(self, event: Event) -> None:
        if event.get("type") == "response.output_text.delta":
            self._delta(str(event.get("delta")))
        elif event.get("type") == "response.output_item.done":
            self._item(event.get("item") or {})
        elif isinstance(event.get("progress"), Mapping):
            self._progress(event["progress"])

    def _delta(self, text: str) -> None:
        if self._separate:
            return
        if self._held or (not self._streamed and text.lstrip().startswith("{")):
            self._held += text
            return
        self._streamed = True
        self._console.out(_plain(text), end="", highlight=False)

    def _show_held(self) -> None:
        if self._held:
            self._console.out(_plain(self._held), highlight=False)
        self._held = ""

    def finish(self, reply: Reply, lm_calls: int | None = None) -> None:
        """Show the other outputs, the sources and the cost of a reply, and reset the timer for the next reply."""
        if self._separate:
            if reply.text:
                self._console.out(_plain(reply.text), highlight=False)
        elif reply.answer_field is not None:
            self._show_held()
        self._held = ""
        if outputs := other_outputs(reply):
            place = self._console if reply.answer_field is None and not self._separate else self._notes
            place.print(output_table(outputs))
        for number, source in enumerate(reply.sources, start=1):
            self._line(f"[{number}] {_source_text(source)}")
        self._dim(", ".join(_costs(reply, lm_calls, time.perf_counter() - self._started)))
        self._started = time.perf_counter()

    def _progress(self, progress: Mapping[str, Any]) -> None:
        """Show the progress of a tool; if the tool is an agent, its items, indented."""
        item = progress.get("item")
        if isinstance(item, Mapping):
            self._dim(_item_text(item), indent="  ")
        elif progress.get("message"):
            fraction = progress.get("fraction")
            percent = f" ({fraction:.0%})" if isinstance(fraction, int | float) else ""
            self._dim(f"… {progress['message']}{percent}")

    def _item(self, item: Mapping[str, Any]) -> None:
        kind = item.get("type")
        if kind in ("reasoning", "function_call", "function_call_output"):
            self._dim(_item_text(item))
        elif kind == "mcp_approval_request":
            for line in describe_approval(str(item.get("name")), str(item.get("arguments"))):
                self._notes.out(line, highlight=False)
        elif kind == "message":
            self._end_of_message(item)

    def _end_of_message(self, item: Mapping[str, Any]) -> None:
        if not (self._streamed or self._held):
            self._delta(text_in(item.get("content")))
        if self._streamed:
            self._console.out("", highlight=False)
        self._streamed = False
        if item.get("status") == "incomplete":
            self._show_held()
            self._dim("(incomplete)")

    def _dim(self, text: str, indent: str = "") -> None:
        self._line(text, style="dim", indent=indent)

    def _line(self, text: str, style: str | None = None, indent: str = "") -> None:
        line = indent + _plain(" ".join(text.split()))
        width = max(self._notes.width, 40)
        shortened = line if len(line) <= width else line[: width - 1] + "…"
        self._notes.out(shortened, style=style, highlight=False)


def describe_approval(name: str, arguments: str) -> list[str]:
    """Describe a call that needs approval: the tool, and each argument in full on a line of its own.

    Characters that a terminal doesn't print, such as control characters and changes of direction, are escaped.

    Args:
        name: the tool's name.
        arguments: the call's arguments, a JSON object.
    """
    try:
        values = read_json(arguments)
    except ValueError:
        values = None
    if not isinstance(values, dict):  # not from our server: as it is
        return [f"? {visible(name)} needs your approval:", f"    {visible(arguments)}"]
    lines = [f"    {visible(key)}: {visible(json.dumps(value, ensure_ascii=False))}" for key, value in values.items()]
    return [f"? {visible(name)} needs your approval:", *(lines or ["    (no arguments)"])]


def _costs(reply: Reply, lm_calls: int | None, seconds: float) -> Iterable[str]:
    if lm_calls is not None:
        yield f"{lm_calls} LM call{'' if lm_calls == 1 else 's'}"
    usage = reply.usage
    if usage.tokens:
        cached = f" ({usage.cached_tokens:,} of them cached)" if usage.cached_tokens else ""
        yield f"{usage.input_tokens:,} tokens read{cached}, {usage.output_tokens:,} written"
    yield f"{seconds:.1f} s"


def _item_text(item: Mapping[str, Any]) -> str:
    """An output item as text."""
    kind = item.get("type")
    if kind == "reasoning":
        return text_in(item.get("summary"))
    if kind in ("function_call", MCP_CALL):
        return f"→ {item.get('name')} {item.get('arguments')}"
    if kind == "function_call_output":
        return f"← {output_text(item.get('output'))}"
    return text_in(item.get("content")) or str(item.get("name") or kind)


def _source_text(source: Source) -> str:
    return source.title if source.url in ("", source.title) else f"{source.title} ({source.url})"


def _plain(text: str) -> str:
    return _CONTROL.sub("", text)


def _responder(agent: Agent | ResponsesAgent) -> ResponsesAgent:
    if isinstance(agent, ResponsesAgent):
        return agent
    use_tracking(agent.config.mlflow, agent.root)
    responder = agent.adapter()
    if responder.approvals is not None:
        responder.approvals.open()
    elif guarded_tools(responder.program):  # asked and answered in this process
        responder.approvals = Approvals.temporary()
    warm_up(responder)
    return responder
