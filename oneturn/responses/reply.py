"""Parse a Responses stream into a ``Reply``, from any source of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oneturn.core.usage import Usage
from oneturn.errors import EndpointError, RequestError

Event = Mapping[str, Any]
OnEvent = Callable[[Event], object]

_ENDED_EARLY = (
    "The stream ended without a terminal event: the server, or a proxy in front of it, closed the connection. "
    "Retry, and check the server's log."
)


@dataclass(frozen=True)
class ToolUse:
    """A tool call and its result.

    Attributes:
        name: the tool's name.
        arguments: its arguments, a JSON object.
        output: its result; ``None`` if the response has none.
        sources: the documents it returned, if the endpoint reports them: ``id``, ``title`` and ``url`` of each.
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
    """A tool call that needs a person's approval (an ``mcp_approval_request`` item).

    Attributes:
        id: the id that the approval response refers to.
        name: the tool's name.
        arguments: its arguments, a JSON object.
        server_label: the server that provides the tool.
    """

    id: str
    name: str
    arguments: str
    server_label: str


@dataclass(frozen=True)
class Reply:
    """An agent's response to one request.

    Attributes:
        text: the answer; after an interrupted stream, the part received.
        tool_calls: the tool calls, in order.
        sources: the sources that the answer cites.
        approvals: the calls that wait for a person's approval; the answer is empty until then, see :meth:`answering`.
        custom_outputs: the program's other outputs.
        answer_field: the name of the program's output that is the answer; ``None`` if the text is all outputs as JSON.
        usage: token counts; the protocol reports neither the number of LM calls nor the cost.
        response_id: the response's id.
        output: the response's items, unchanged.
        asked: the input items of the request.
    """

    text: str
    tool_calls: tuple[ToolUse, ...]
    sources: tuple[Source, ...]
    approvals: tuple[ApprovalRequest, ...]
    custom_outputs: Mapping[str, Any]
    usage: Usage
    response_id: str | None
    output: tuple[Mapping[str, Any], ...]
    asked: tuple[Mapping[str, Any], ...] = ()
    answer_field: str | None = "answer"

    @property
    def conversation(self) -> list[Mapping[str, Any]]:
        """The input and output items, in order: the first items of a follow-up request."""
        return [*self.asked, *self.output]

    def answering(self, approve: bool, reason: str = "") -> list[Mapping[str, Any]]:
        """Return the items of the request that answers the first approval; send them with the same custom inputs.

        Args:
            approve: whether the agent may make the call.
            reason: the reason, passed to the LM.

        Raises:
            RequestError: no call waits for approval.
        """
        if not self.approvals:
            raise RequestError("The reply has no call that waits for approval.")
        verdict = {"approval_request_id": self.approvals[0].id, "approve": approve, "reason": reason or None}
        return [*self.conversation, {"type": "mcp_approval_response", **verdict}]


def read_reply(
    events: Iterable[Event], on_event: OnEvent | None = None, asked: Sequence[Mapping[str, Any]] = ()
) -> Reply:
    """Read events of the Responses protocol up to the terminal one.

    Args:
        events: the stream; each event is a dict.
        on_event: called with each event.
        asked: the input items of the request.

    Raises:
        EndpointError: the stream ends with an error, or without a terminal event; ``partial`` holds the items received.
    """
    output: list[Mapping[str, Any]] = []
    try:
        for event in events:
            if on_event is not None:
                on_event(event)
            _raise_for_error(event)
            if event.get("type") == "response.output_item.done":
                output.append(event.get("item") or {})
            elif event.get("type") == "response.completed":
                return _reply(event.get("response") or {}, event, output, asked)
        raise EndpointError(_ENDED_EARLY, code="stream_ended")
    except EndpointError as error:
        if output:
            error.partial = _reply({}, {}, output, asked)
        raise


def _raise_for_error(event: Event) -> None:
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
        raise EndpointError(f"The run ended before the answer was complete: {reason}.", code=reason)


def _error(error: Any) -> EndpointError:
    if not isinstance(error, Mapping):
        return EndpointError(str(error))
    code = error.get("code") or error.get("error_code") or "server_error"
    return EndpointError(str(error.get("message") or code), code=str(code))


def _reply(
    response: Mapping[str, Any], event: Event, streamed: list[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]
) -> Reply:
    output = response.get("output") or streamed
    results = {item.get("call_id"): item for item in _select(output, "function_call_output")}
    messages = _select(output, "message")
    answers = [item for item in messages if _is_complete(item)] or ([] if response else messages[-1:])
    parts = [part for item in answers for part in item.get("content") or []]
    annotations = [annotation for part in parts for annotation in part.get("annotations") or []]
    return Reply(
        text="".join(part.get("text") or "" for part in parts),
        tool_calls=tuple(
            _tool_use(item, results.get(item.get("call_id"))) for item in _select(output, "function_call")
        ),
        sources=tuple(source(annotation) for annotation in annotations),
        approvals=tuple(_approval(item) for item in _select(output, "mcp_approval_request")),
        custom_outputs=response.get("custom_outputs") or event.get("custom_outputs") or {},
        usage=Usage.from_responses(response.get("usage")),
        response_id=response.get("id"),
        output=tuple(output),
        asked=tuple(asked),
        answer_field=(response.get("metadata") or {}).get("answer_field", "answer") or None,
    )


def _tool_use(call: Mapping[str, Any], result: Mapping[str, Any] | None) -> ToolUse:
    output = None if result is None else str(result.get("output"))
    sources = tuple((result or {}).get("sources") or ())
    return ToolUse(str(call.get("name")), str(call.get("arguments")), output, sources)


def _approval(item: Mapping[str, Any]) -> ApprovalRequest:
    values = (str(item.get(key) or "") for key in ("id", "name", "arguments", "server_label"))
    return ApprovalRequest(*values)


def source(annotation: Mapping[str, Any]) -> Source:
    """The source in an annotation."""
    url = annotation.get("url") or annotation.get("file_id") or ""
    return Source(str(annotation.get("title") or annotation.get("filename") or url), str(url))


def _select(items: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [item for item in items if item.get("type") == kind]


def _is_complete(message: Mapping[str, Any]) -> bool:
    return message.get("status") != "incomplete"  # an abandoned attempt at the answer
