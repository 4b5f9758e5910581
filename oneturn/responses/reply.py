"""Parse a Responses stream into a ``Reply``, from any source of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities.span import NO_OP_SPAN_TRACE_ID

from oneturn.core.steps import safe_url
from oneturn.core.usage import Usage
from oneturn.errors import EndpointError, RequestError
from oneturn.responses.call_items import MCP_CALL, output_of, output_text
from oneturn.responses.endpoint_errors import bad_stream, check_types, mapping, mappings, raise_for_error
from oneturn.responses.event_stream import DONE, Event

OnEvent = Callable[[Event], object]

_ENDED_EARLY = (
    "The stream ended without a terminal event: the server, or a proxy in front of it, closed the connection. "
    "Retry, and check the server's log."
)
_INCOMPLETE = (
    "The stream ended with [DONE], but without a terminal event, and the answer isn't complete. Retry, and check the "
    "server's log."
)
_ENDED_IN_CALL = (
    "The last event of the stream is a response.completed that ends in a call of {names} without its output, and no "
    "[DONE] follows: either the agent's own run was cut there, or the server leaves the call to the client. Retry, and "
    "check the server's log."
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
        input_items: the input items of the request.
        trace_id: the id of the run's MLflow trace, if the server reports it.
    """

    text: str
    tool_calls: tuple[ToolUse, ...]
    sources: tuple[Source, ...]
    approvals: tuple[ApprovalRequest, ...]
    custom_outputs: Mapping[str, Any]
    usage: Usage
    response_id: str | None
    output: tuple[Mapping[str, Any], ...]
    input_items: tuple[Mapping[str, Any], ...] = ()
    answer_field: str | None = "answer"
    trace_id: str | None = None

    @property
    def conversation(self) -> list[Mapping[str, Any]]:
        """The input and output items, in order: the first items of a follow-up request."""
        return [*self.input_items, *self.output]

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
    events: Iterable[Event], on_event: OnEvent | None = None, input_items: Sequence[Mapping[str, Any]] = ()
) -> Reply:
    """Read a stream of the Responses protocol; see :class:`ReplyReader`.

    Args:
        events: the stream; each event is a dict. :data:`DONE` stands for ``data: [DONE]``.
        on_event: called with each event.
        input_items: the input items of the request.

    Raises:
        EndpointError: the stream ends with an error, or before the answer is complete; ``partial`` holds the items
            received.
    """
    reader = ReplyReader(on_event, input_items)
    for event in events:
        reader.read(event)
    return reader.reply()


def read_response(response: Mapping[str, Any], input_items: Sequence[Mapping[str, Any]] = ()) -> Reply:
    """Read a response that wasn't streamed.

    Raises:
        EndpointError: the response holds an error instead of output, or it failed or is incomplete; ``partial`` holds
            its items.
    """
    return read_reply(response_events(response), input_items=input_items)


def response_events(response: Any) -> list[Event]:
    """Return the events that a response which wasn't streamed stands for.

    Raises:
        EndpointError: it is no response.
    """
    status = mapping(response).get("status")
    ending = "failed" if mapping(response).get("error") else status if status in ("failed", "incomplete") else None
    if ending is None and not isinstance(mapping(response).get("output"), list):
        raise bad_stream("The response has no list of output items", response)
    items: list[Event] = []
    if ending is not None:
        items = [{"type": "response.output_item.done", "item": item} for item in response.get("output") or ()]
    return [*items, {"type": f"response.{ending or 'completed'}", "response": response}, DONE]


class ReplyReader:
    """Collects a ``Reply`` from the events of one stream.

    Agents differ in how a stream ends. OpenAI's ends with one ``response.completed``; an agent that forwards the events
    of its LM calls sends one per call; agents written after MLflow's documentation send none. So a
    ``response.completed`` that ends in a call without output isn't the end. Without a terminal event, the answer is
    complete if the stream ended with ``[DONE]``, a message is finished, no item is open and every call has its output.

    Args:
        on_event: called with each event.
        input_items: the input items of the request.
    """

    def __init__(self, on_event: OnEvent | None = None, input_items: Sequence[Mapping[str, Any]] = ()):
        self._on_event = on_event
        self._input_items = input_items
        self._output: list[Mapping[str, Any]] = []
        self._open: dict[str, str] = {}  # the open items by id, with the text received
        self._custom_outputs: dict[str, Any] = {}
        self._usage = Usage()
        self._response_id: str | None = None
        self._answer_field: str | None = "answer"
        self._trace_id: str | None = None
        self._completed = False  # whether the last event was response.completed
        self._done = False  # whether it was [DONE]
        self.ended = False
        """Whether the answer is complete; more events may follow."""

    def read(self, event: Event) -> None:
        """Read one event.

        Raises:
            EndpointError: the event is an error, or not an event of the protocol; ``partial`` holds the items received.
        """
        kind = event.get("type")
        if event is DONE:
            self.ended = self.ended or self._completed or self._is_complete()
            self._done = True
            return
        try:
            check_types(event)
        except EndpointError as error:
            raise self.with_partial(error) from None
        self._trace_id = _trace_id(event) or self._trace_id
        if kind is None and "trace_id" in event:  # sent by MLflow's server after the last event
            return
        if self._on_event is not None:
            self._on_event(event)
        try:
            raise_for_error(event)
        except EndpointError as error:
            self.ended = False  # the server takes the answer back, or its run has failed after an LM call's end
            raise self.with_partial(error) from None
        self._custom_outputs |= mapping(event.get("custom_outputs"))
        self._completed = kind == "response.completed"
        if kind == "response.completed":
            self._read_completed(event.get("response") or {})
        else:
            self._read_item(str(kind), event)

    def reply(self) -> Reply:
        """Return the reply.

        Raises:
            EndpointError: the answer isn't complete; ``partial`` holds the items received.
        """
        if not self.ended:
            raise self.with_partial(EndpointError(self._early_end(), code="stream_ended"))
        return self._reply()

    def _early_end(self) -> str:
        """What the stream ended with."""
        if self._completed and (open_calls := _without_output(self._output, self._output)):
            return _ENDED_IN_CALL.format(names=", ".join(sorted({str(call.get("name")) for call in open_calls})))
        return _INCOMPLETE if self._done else _ENDED_EARLY

    def _read_item(self, kind: str, event: Event) -> None:
        item = event.get("item") or {}
        key = str(item.get("id") or event.get("item_id") or event.get("output_index"))
        if kind == "response.output_item.added":
            self._open[key] = ""
        elif kind == "response.output_text.delta":
            self._open[key] = self._open.get(key, "") + str(event.get("delta") or "")
        elif kind == "response.output_item.done":
            self._output.append(item)
            self._open.pop(key, None)
        else:
            return
        self.ended = False

    def _read_completed(self, response: Mapping[str, Any]) -> None:
        output = list(response.get("output") or ())
        self._output = _merge([item for item in self._output if item in output or _is_complete(item)], output)
        self._custom_outputs |= mapping(response.get("custom_outputs"))
        self._usage += Usage.from_responses(mapping(response.get("usage")))
        self._response_id = response.get("id") or self._response_id
        answer_field = mapping(response.get("metadata")).get("answer_field", self._answer_field)
        self._answer_field = str(answer_field) if answer_field else None
        self._open.clear()
        self.ended = not self._ends_in_call(output or self._output)

    def _ends_in_call(self, output: Sequence[Mapping[str, Any]]) -> bool:
        if _select(output, "mcp_approval_request"):
            return False
        last = list(output[-1:])
        return bool(_without_output(last, last) or _without_output(output, self._output))

    def _is_complete(self) -> bool:
        messages = [item for item in _select(self._output, "message") if _is_complete(item)]
        if not messages or _without_output(self._output, self._output):
            return False
        text = "".join(map(_text, messages))
        return all(received and received in text for received in self._open.values())  # ids of deltas may differ

    def with_partial(self, error: EndpointError) -> EndpointError:
        """Return the error with the items received, unless it has them."""
        if self._output and error.partial is None:
            error.partial = self._reply(partial=True)
        return error

    def _reply(self, partial: bool = False) -> Reply:
        output = self._output
        results = {_call_id(item): item for item in _select(output, "function_call_output")}
        messages = _select(output, "message")
        answers = [item for item in messages if _is_complete(item)] or (messages[-1:] if partial else [])
        parts = [part for item in answers for part in _parts(item.get("content"))]
        annotations = [annotation for part in parts for annotation in mappings(part.get("annotations"))]
        return Reply(
            text="".join(map(_text, answers)),
            tool_calls=tuple(
                _tool_use(item, results.get(_call_id(item))) for item in _select(output, "function_call", MCP_CALL)
            ),
            sources=tuple(source(annotation) for annotation in annotations),
            approvals=tuple(_approval(item) for item in _select(output, "mcp_approval_request")),
            custom_outputs=self._custom_outputs,
            usage=self._usage,
            response_id=self._response_id,
            output=tuple(output),
            input_items=tuple(self._input_items),
            answer_field=self._answer_field,
            trace_id=self._trace_id,
        )


def _trace_id(event: Event) -> str | None:
    """The trace's id, from MLflow's server (``x-mlflow-return-trace-id``) or from Model Serving (``return_trace``)."""
    response = event.get("response") or event
    trace = mapping(mapping(response.get("databricks_output")).get("trace"))
    id = event.get("trace_id") or mapping(response.get("metadata")).get("trace_id")
    id = id or mapping(trace.get("info")).get("trace_id")
    return str(id) if id and id != NO_OP_SPAN_TRACE_ID else None


def _without_output(items: Sequence[Mapping[str, Any]], output: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The calls among ``items`` whose outputs aren't in ``output``."""
    results = {_call_id(item) for item in _select(output, "function_call_output")}
    return [item for item in _select(items, "function_call") if _call_id(item) not in results]


def _call_id(item: Mapping[str, Any]) -> str:
    return str(item.get("call_id"))


def _merge(streamed: list[Mapping[str, Any]], output: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Merge the items streamed so far with the output of a response, which may hold those of one LM call only."""
    latest = {_identity(item): item for item in output}
    known = {_identity(item) for item in streamed}
    if known <= latest.keys():
        return output
    merged = [latest.get(_identity(item), item) for item in streamed]
    return merged + [item for item in output if _identity(item) not in known]


def _identity(item: Mapping[str, Any]) -> tuple[str, str]:
    """What tells an item from others. Ids of messages don't: some agents give all of them the same."""
    text = _text(item) if item.get("type") == "message" else ""
    return str(item.get("type")), str(text or item.get("call_id") or item.get("id") or item)


def _text(message: Mapping[str, Any]) -> str:
    return text_in(message.get("content"))


def text_in(content: Any) -> str:
    """Return the text in the content of a message, or in the summary of a reasoning item."""
    texts = (part.get("text") or part.get("refusal") for part in _parts(content))
    return "".join(text for text in texts if isinstance(text, str))


def _parts(content: Any) -> list[Mapping[str, Any]]:
    parts = content if isinstance(content, list | tuple) else [content]
    return mappings([{"text": part} if isinstance(part, str) else part for part in parts])


def _tool_use(call: Mapping[str, Any], result: Mapping[str, Any] | None) -> ToolUse:
    if call.get("type") == MCP_CALL:  # it has its own output
        return ToolUse(str(call.get("name")), str(call.get("arguments")), output_of(call), _sources(call))
    output = None if result is None else output_text(result.get("output"))
    return ToolUse(str(call.get("name")), str(call.get("arguments")), output, _sources(result or {}))


def _sources(result: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    return tuple(mappings(result.get("sources")))


def _approval(item: Mapping[str, Any]) -> ApprovalRequest:
    values = (str(item.get(key) or "") for key in ("id", "name", "arguments", "server_label"))
    return ApprovalRequest(*values)


def source(annotation: Mapping[str, Any]) -> Source:
    """The source in an annotation."""
    link = str(annotation.get("url") or annotation.get("file_id") or "")
    return Source(str(annotation.get("title") or annotation.get("filename") or link), safe_url(link))


def _select(items: Iterable[Mapping[str, Any]], *kinds: str) -> list[Mapping[str, Any]]:
    return [item for item in items if item.get("type") in kinds]


def _is_complete(item: Mapping[str, Any]) -> bool:
    """Whether an item isn't a draft: a message that was abandoned."""
    return item.get("type") != "message" or item.get("status") != "incomplete"
