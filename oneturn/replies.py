"""A Responses stream, read to its end: what a client gets, whichever way the events came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from oneturn.errors import EndpointError

Event = Mapping[str, Any]
OnEvent = Callable[[Event], object]

_ENDED_EARLY = (
    "The stream ended before the answer was complete: the server, or a proxy before it, closed the connection. "
    "Ask again, and look at the server's log."
)


@dataclass(frozen=True)
class ToolUse:
    """A tool that the agent called, with what came back; ``output`` is ``None`` if nothing did."""

    name: str
    arguments: str
    output: str | None


@dataclass(frozen=True)
class Source:
    """A source that the answer cites."""

    title: str
    url: str


@dataclass(frozen=True)
class Reply:
    """What an agent answered.

    Attributes:
        text: the answer.
        tool_calls: the tools that were called, in order.
        sources: what the answer cites.
        custom_outputs: the program's other outputs.
        usage: token counts, as the Responses protocol has them.
        response_id: the response's id.
        output: the response's items as they came.
    """

    text: str
    tool_calls: tuple[ToolUse, ...]
    sources: tuple[Source, ...]
    custom_outputs: Mapping[str, Any]
    usage: Mapping[str, Any]
    response_id: str | None
    output: tuple[Mapping[str, Any], ...]


def read_reply(events: Iterable[Event], on_event: OnEvent | None = None) -> Reply:
    """Read ``events``, each a dict as the Responses protocol has it, until the terminal one.

    Args:
        events: the stream.
        on_event: told of each event as it comes.

    Raises:
        EndpointError: the stream ends with an error, or without a terminal event.
    """
    output: list[Mapping[str, Any]] = []
    for event in events:
        if on_event is not None:
            on_event(event)
        _refuse_errors(event)
        if event.get("type") == "response.output_item.done":
            output.append(event.get("item") or {})
        elif event.get("type") == "response.completed":
            return _reply(event, output)
    raise EndpointError(_ENDED_EARLY, code="stream_ended")


def _refuse_errors(event: Event) -> None:
    databricks = (event.get("databricks_output") or {}).get("error")
    if databricks:
        raise _error(databricks)
    if event.get("type") == "error" or (event.get("type") is None and event.get("error")):
        raise _error(event.get("error") or event)
    if event.get("type") in ("response.failed", "response.incomplete"):
        response = event.get("response") or {}
        raise _error(response.get("error") or response.get("incomplete_details") or "The response was not completed.")


def _error(told: Any) -> EndpointError:
    if not isinstance(told, Mapping):
        return EndpointError(str(told))
    code = told.get("code") or told.get("error_code") or told.get("reason") or "server_error"
    return EndpointError(str(told.get("message") or code), code=str(code))


def _reply(completed: Event, streamed: list[Mapping[str, Any]]) -> Reply:
    response = completed.get("response") or {}
    output = response.get("output") or streamed
    results = {item.get("call_id"): str(item.get("output")) for item in _of(output, "function_call_output")}
    parts = [part for item in _of(output, "message") if _whole(item) for part in item.get("content") or []]
    cited = [annotation for part in parts for annotation in part.get("annotations") or []]
    return Reply(
        text="".join(part.get("text") or "" for part in parts),
        tool_calls=tuple(
            ToolUse(str(item.get("name")), str(item.get("arguments")), results.get(item.get("call_id")))
            for item in _of(output, "function_call")
        ),
        sources=tuple(source(annotation) for annotation in cited),
        custom_outputs=response.get("custom_outputs") or completed.get("custom_outputs") or {},
        usage=response.get("usage") or {},
        response_id=response.get("id"),
        output=tuple(output),
    )


def source(annotation: Mapping[str, Any]) -> Source:
    """The source that an annotation names."""
    url = annotation.get("url") or annotation.get("file_id") or ""
    return Source(str(annotation.get("title") or annotation.get("filename") or url), str(url))


def _of(items: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [item for item in items if item.get("type") == kind]


def _whole(message: Mapping[str, Any]) -> bool:
    return message.get("status") != "incomplete"  # an attempt that was started over
