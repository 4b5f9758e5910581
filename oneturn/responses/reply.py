"""A Responses stream, read to its end: what a client gets, whichever way the events came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oneturn.errors import EndpointError, RequestError

Event = Mapping[str, Any]
OnEvent = Callable[[Event], object]

_ENDED_EARLY = (
    "The stream ended before the answer was complete: the server, or a proxy before it, closed the connection. "
    "Ask again, and look at the server's log."
)


@dataclass(frozen=True)
class ToolUse:
    """A tool that the agent called, with what came back.

    Attributes:
        name: the tool's.
        arguments: what it was called with, a JSON object.
        output: what it gave; ``None`` if nothing came back.
        sources: what it found, where the endpoint says so: ``id``, ``title`` and ``url`` of each document.
    """

    name: str
    arguments: str
    output: str | None
    sources: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """A source that the answer cites."""

    title: str
    url: str


@dataclass(frozen=True)
class ApprovalRequest:
    """A call that an agent makes only once a person has approved it (an ``mcp_approval_request`` item).

    Attributes:
        id: names it in the answer.
        name: the tool.
        arguments: what it would be called with, a JSON object.
        server_label: whose tool it is.
    """

    id: str
    name: str
    arguments: str
    server_label: str


@dataclass(frozen=True)
class Reply:
    """What an agent answered.

    Attributes:
        text: the answer; of a stream that broke off, what there is of it.
        tool_calls: the tools that were called, in order.
        sources: what the answer cites.
        approvals: the calls that wait for a person's approval; then there is no answer yet, see :meth:`answering`.
        custom_outputs: the program's other outputs.
        usage: token counts, as the Responses protocol has them.
        response_id: the response's id.
        output: the response's items as they came.
        asked: the items that it is the answer to.
    """

    text: str
    tool_calls: tuple[ToolUse, ...]
    sources: tuple[Source, ...]
    approvals: tuple[ApprovalRequest, ...]
    custom_outputs: Mapping[str, Any]
    usage: Mapping[str, Any]
    response_id: str | None
    output: tuple[Mapping[str, Any], ...]
    asked: tuple[Mapping[str, Any], ...] = ()

    @property
    def conversation(self) -> list[Mapping[str, Any]]:
        """What was asked and what came back: the items that the next request begins with."""
        return [*self.asked, *self.output]

    def answering(self, approve: bool, reason: str = "") -> list[Mapping[str, Any]]:
        """What to ask next, with the same custom inputs, so that the agent goes on with its call or without it.

        Args:
            approve: whether the call may be made.
            reason: why, or why not; the LM reads it.

        Raises:
            RequestError: nothing waits for an approval.
        """
        if not self.approvals:
            raise RequestError("No call of this reply waits for an approval.")
        verdict = {"approval_request_id": self.approvals[0].id, "approve": approve, "reason": reason or None}
        return [*self.conversation, {"type": "mcp_approval_response", **verdict}]


def read_reply(
    events: Iterable[Event], on_event: OnEvent | None = None, asked: Sequence[Mapping[str, Any]] = ()
) -> Reply:
    """Read ``events``, each a dict as the Responses protocol has it, until the terminal one.

    Args:
        events: the stream.
        on_event: told of each event as it comes.
        asked: the items that they are the answer to.

    Raises:
        EndpointError: the stream ends with an error, or without a terminal event; ``partial`` is what had come.
    """
    output: list[Mapping[str, Any]] = []
    try:
        for event in events:
            if on_event is not None:
                on_event(event)
            _refuse_errors(event)
            if event.get("type") == "response.output_item.done":
                output.append(event.get("item") or {})
            elif event.get("type") == "response.completed":
                return _reply(event.get("response") or {}, event, output, asked)
        raise EndpointError(_ENDED_EARLY, code="stream_ended")
    except EndpointError as error:
        if output:
            error.partial = _reply({}, {}, output, asked)
        raise


def _refuse_errors(event: Event) -> None:
    databricks = (event.get("databricks_output") or {}).get("error")
    if databricks:
        raise _error(databricks)
    if event.get("type") == "error" or (event.get("type") is None and event.get("error")):
        raise _error(event.get("error") or event)
    if event.get("type") in ("response.failed", "response.incomplete"):
        response = event.get("response") or {}
        if response.get("error"):
            raise _error(response["error"])
        reason = str((response.get("incomplete_details") or {}).get("reason") or "no reason given")
        raise EndpointError(f"The run ended before its answer was complete: {reason}.", code=reason)


def _error(told: Any) -> EndpointError:
    if not isinstance(told, Mapping):
        return EndpointError(str(told))
    code = told.get("code") or told.get("error_code") or "server_error"
    return EndpointError(str(told.get("message") or code), code=str(code))


def _reply(
    response: Mapping[str, Any], event: Event, streamed: list[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]
) -> Reply:
    output = response.get("output") or streamed
    results = {item.get("call_id"): item for item in _of(output, "function_call_output")}
    messages = _of(output, "message")
    said = [item for item in messages if _whole(item)] or ([] if response else messages[-1:])
    parts = [part for item in said for part in item.get("content") or []]
    cited = [annotation for part in parts for annotation in part.get("annotations") or []]
    return Reply(
        text="".join(part.get("text") or "" for part in parts),
        tool_calls=tuple(_tool_use(item, results.get(item.get("call_id"))) for item in _of(output, "function_call")),
        sources=tuple(source(annotation) for annotation in cited),
        approvals=tuple(_approval(item) for item in _of(output, "mcp_approval_request")),
        custom_outputs=response.get("custom_outputs") or event.get("custom_outputs") or {},
        usage=response.get("usage") or {},
        response_id=response.get("id"),
        output=tuple(output),
        asked=tuple(asked),
    )


def _tool_use(call: Mapping[str, Any], result: Mapping[str, Any] | None) -> ToolUse:
    output = None if result is None else str(result.get("output"))
    sources = tuple((result or {}).get("sources") or ())
    return ToolUse(str(call.get("name")), str(call.get("arguments")), output, sources)


def _approval(item: Mapping[str, Any]) -> ApprovalRequest:
    known = (str(item.get(key) or "") for key in ("id", "name", "arguments", "server_label"))
    return ApprovalRequest(*known)


def source(annotation: Mapping[str, Any]) -> Source:
    """The source that an annotation names."""
    url = annotation.get("url") or annotation.get("file_id") or ""
    return Source(str(annotation.get("title") or annotation.get("filename") or url), str(url))


def _of(items: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [item for item in items if item.get("type") == kind]


def _whole(message: Mapping[str, Any]) -> bool:
    return message.get("status") != "incomplete"  # an attempt that was started over
