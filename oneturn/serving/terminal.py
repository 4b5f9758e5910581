"""Ask an agent in the terminal, and show what it does while it does it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest
from rich.console import Console

from oneturn.agent import Agent
from oneturn.config.tracking import use_tracking
from oneturn.core.usage import spending
from oneturn.responses.client import input_items, query
from oneturn.responses.reply import ApprovalRequest, Event, Reply, Source, read_reply
from oneturn.serving.server import warm_up

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a text must not steer the terminal


Approve = Callable[[ApprovalRequest], bool]
"""Asked for each call that waits for a person's approval; says whether it may be made."""


def ask(
    agent: Agent | ResponsesAgent,
    question: str,
    *,
    custom_inputs: Mapping[str, Any] | None = None,
    approve: Approve | None = None,
    console: Console | None = None,
) -> Reply:
    """Ask ``agent`` one question in this process, through the adapter that serves it, and show the run.

    Args:
        agent: the agent, or anything that serves one.
        question: what to ask.
        custom_inputs: the program's other inputs.
        approve: says whether a call that needs a person's approval may be made; ``None``: the reply comes back with its
            ``approvals``.
        console: where to show it; ``None`` for the standard output.

    Raises:
        EndpointError: the run ended without an answer.
    """
    shown = Renderer(console or Console())
    responder = _responder(agent)

    def once(items: list[Mapping[str, Any]]) -> Reply:
        body = {"input": items, "custom_inputs": dict(custom_inputs or {})}
        with spending() as spend:
            stream = responder.predict_stream(ResponsesAgentRequest.model_validate(body))
            reply = read_reply((event.model_dump() for event in stream), shown, items)
        shown.finish(reply, lm_calls=spend.lm_calls)
        return reply

    return _until_answered(once, question, approve)


def ask_endpoint(
    url: str,
    question: str,
    *,
    custom_inputs: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    approve: Approve | None = None,
    console: Console | None = None,
) -> Reply:
    """``oneturn.query``, shown in the terminal as ``ask`` shows a run in this process."""
    shown = Renderer(console or Console())

    def once(items: list[Mapping[str, Any]]) -> Reply:
        reply = query(url, items, custom_inputs=custom_inputs, api_key=api_key, on_event=shown)
        shown.finish(reply)
        return reply

    return _until_answered(once, question, approve)


def _until_answered(once: Callable[[list[Mapping[str, Any]]], Reply], question: str, approve: Approve | None) -> Reply:
    reply = once(input_items(question))
    while reply.approvals and approve is not None:
        reply = once(reply.answering(approve(reply.approvals[0])))
    return reply


class Renderer:
    """Shows Responses events as they come: call it with each, then ``finish`` it with the reply.

    Thoughts, tools and costs are dim, the answer isn't. Where the output is no terminal, it is plain text.
    """

    def __init__(self, console: Console):
        self._console = console
        self._started = time.perf_counter()
        self._streamed = False  # whether pieces of the message that is open have been shown

    def __call__(self, event: Event) -> None:
        if event.get("type") == "response.output_text.delta":
            self._streamed = True
            self._console.out(_plain(str(event.get("delta"))), end="", highlight=False)
        elif event.get("type") == "response.output_item.done":
            self._item(event.get("item") or {})
        elif event.get("progress"):
            self._progress(event["progress"])

    def finish(self, reply: Reply, lm_calls: int | None = None) -> None:
        """Show the sources and what the reply cost; what comes next is another reply's."""
        for number, source in enumerate(reply.sources, start=1):
            self._line(f"[{number}] {_named(source)}")
        self._dim(", ".join(_costs(reply, lm_calls, time.perf_counter() - self._started)))
        self._started = time.perf_counter()

    def _progress(self, told: Mapping[str, Any]) -> None:
        """How a tool gets on; of an agent that is the tool, what it does, a step to the right."""
        item = told.get("item")
        if item:
            self._dim(_nested(item), indent="  ")
        elif told.get("message"):
            done = told.get("fraction")
            self._dim(f"… {told['message']}" + (f" ({done:.0%})" if isinstance(done, int | float) else ""))

    def _item(self, item: Mapping[str, Any]) -> None:
        kind = item.get("type")
        if kind in ("reasoning", "function_call", "function_call_output"):
            self._dim(_nested(item))
        elif kind == "mcp_approval_request":
            self._line(f"? {item.get('name')} {item.get('arguments')} waits for your approval")
        elif kind == "message":
            self._end_of_message(item)

    def _end_of_message(self, item: Mapping[str, Any]) -> None:
        rest = "" if self._streamed else _text(item.get("content"))
        self._console.out(_plain(rest), highlight=False)
        self._streamed = False
        if item.get("status") == "incomplete":
            self._dim("(not finished)")

    def _dim(self, text: str, indent: str = "") -> None:
        self._line(text, style="dim", indent=indent)

    def _line(self, text: str, style: str | None = None, indent: str = "") -> None:
        line = indent + _plain(" ".join(text.split()))
        width = max(self._console.width, 40)
        shortened = line if len(line) <= width else line[: width - 1] + "…"
        self._console.out(shortened, style=style, highlight=False)


def _costs(reply: Reply, lm_calls: int | None, seconds: float) -> Iterable[str]:
    if lm_calls is not None:
        yield f"{lm_calls} LM call{'' if lm_calls == 1 else 's'}"
    if reply.usage.get("total_tokens"):
        yield f"{reply.usage.get('input_tokens'):,} tokens read, {reply.usage.get('output_tokens'):,} written"
    yield f"{seconds:.1f} s"


def _nested(item: Mapping[str, Any]) -> str:
    """What an agent has done, in one line."""
    kind = item.get("type")
    if kind == "reasoning":
        return _text(item.get("summary"))
    if kind == "function_call":
        return f"→ {item.get('name')} {item.get('arguments')}"
    if kind == "function_call_output":
        return f"← {item.get('output')}"
    return _text(item.get("content")) or str(item.get("name") or kind)


def _named(source: Source) -> str:
    return source.title if source.url in ("", source.title) else f"{source.title} ({source.url})"


def _text(parts: Any) -> str:
    return "".join(str(part.get("text") or "") for part in parts or [])


def _plain(text: str) -> str:
    return _CONTROL.sub("", text)


def _responder(agent: Agent | ResponsesAgent) -> ResponsesAgent:
    if isinstance(agent, ResponsesAgent):
        return agent
    use_tracking(agent.config.mlflow)
    responder = agent.adapter()
    warm_up(responder)
    return responder
