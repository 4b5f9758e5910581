"""Convert steps to Responses stream events (OpenAI API reference, "Streaming events").

One writer writes one response. It numbers the events, assigns each item an id and an index, and stores the
finished items: the terminal event repeats the streamed items, without the drafts of the answer.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from mlflow.entities import Document
from mlflow.types.responses import (
    create_function_call_item,
    create_function_call_output_item,
    create_mcp_approval_request_item,
    create_reasoning_item,
    create_text_output_item,
)

from oneturn.core.serialization import plain, replace_surrogates
from oneturn.core.steps import ToolCall, ToolProgress, ToolResult, WaitingCall, source
from oneturn.errors import AgentError, ProgramError
from oneturn.responses.errors import error_event

Event = dict[str, Any]
Item = dict[str, Any]

# Required fields of OpenAI's Response that don't apply here: the agent's tools are internal.
_FIXED_FIELDS = {"model": "agent", "tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
_CALL_TYPES = ("function_call", "function_call_output", "mcp_approval_request")
_UNFINISHED_OUTPUT = "Error: the run ended before this tool did."


class EventWriter:
    """Writes the events of one response, in order.

    Attributes:
        output: the finished items.
        metadata: the response's ``metadata``.
    """

    def __init__(self) -> None:
        self.response_id = _new_id("resp")
        self.output: list[Item] = []
        self.metadata: dict[str, str] = {}
        self._created_at = time.time()
        self._sequence = 0
        self._message: _OpenMessage | None = None
        self._interrupted: _OpenMessage | None = None
        self._open_calls: dict[str, tuple[str, str]] = {}  # by the program's call id: call id in the stream, tool
        self._call_ids: set[str] = set()

    def start(self) -> Iterator[Event]:
        """Write ``response.created`` and ``response.in_progress``."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress"))

    def thought(self, text: str) -> Iterator[Event]:
        """Write a ``reasoning`` item with its summary."""
        yield from self._interrupt()
        text = replace_surrogates(text)
        item = create_reasoning_item(_new_id("rs"), text)
        position = {"item_id": item["id"], "output_index": len(self.output), "summary_index": 0}
        part = {"type": "summary_text", "text": text}
        yield self._added({**item, "summary": [], "status": "in_progress"})
        yield self._event("response.reasoning_summary_part.added", **position, part={**part, "text": ""})
        yield self._event("response.reasoning_summary_text.delta", **position, delta=text)
        yield self._event("response.reasoning_summary_text.done", **position, text=text)
        yield self._event("response.reasoning_summary_part.done", **position, part=part)
        yield self._done({**item, "status": "completed"})

    def tool_call(self, call: ToolCall) -> Iterator[Event]:
        """Write a ``function_call`` item with its arguments.

        Raises:
            ProgramError: an open call has the same ``call_id``.
        """
        if call.call_id in self._open_calls:
            raise ProgramError(f"The program repeats the open call {call.call_id!r}; yield its ToolResult first.")
        yield from self._interrupt()
        arguments, name = _json(call.args), replace_surrogates(call.name)
        call_id = self._call_id(call.call_id)
        self._open_calls[call.call_id] = call_id, name
        item = create_function_call_item(_new_id("fc"), call_id, name, arguments)
        position = {"item_id": item["id"], "output_index": len(self.output)}
        yield self._added({**item, "arguments": "", "status": "in_progress"})
        yield self._event("response.function_call_arguments.delta", **position, delta=arguments)
        yield self._event("response.function_call_arguments.done", **position, name=name, arguments=arguments)
        yield self._done({**item, "status": "completed"})

    def tool_progress(self, step: ToolProgress) -> Iterator[Event]:
        """Write a ``response.in_progress`` that keeps the stream alive; its ``progress`` is the state of a tool.

        Write nothing if the call already has a result: the tool was abandoned.
        """
        if step.call_id not in self._open_calls:
            return
        call_id, name = self._open_calls[step.call_id]
        fields: dict[str, Any] = {"call_id": call_id, "name": name, "message": step.message, "fraction": step.fraction}
        if step.item is not None:
            fields["item"] = step.item
        yield self._event("response.in_progress", response=self._response("in_progress"), progress=plain(fields))

    def keep_alive(self) -> Event:
        """Return a ``response.in_progress`` without content, which keeps the stream alive."""
        return self._event("response.in_progress", response=self._response("in_progress"))

    def tool_result(self, result: ToolResult) -> Iterator[Event]:
        """Write a ``function_call_output`` item, paired with its call by ``call_id``.

        Raises:
            ProgramError: no open call has this ``call_id``.
        """
        if result.call_id not in self._open_calls:
            raise ProgramError(
                f"The program yields a result of {result.name} for the call {result.call_id!r}, which isn't open."
            )
        yield from self._interrupt()
        call_id, _ = self._open_calls[result.call_id]
        item = {**create_function_call_output_item(call_id, replace_surrogates(result.output)), "id": _new_id("fco")}
        if result.is_error:
            item["is_error"] = True
        if sources := [source(document) for document in result.documents]:
            item["sources"] = plain(sources)
        del self._open_calls[result.call_id]
        yield self._added({**item, "output": "", "status": "in_progress"})
        yield self._done({**item, "status": "completed"})

    def approval_request(self, waiting: WaitingCall, sign: Callable[[Item], str]) -> Iterator[Event]:
        """Write an ``mcp_approval_request`` item, which ends the turn.

        Args:
            waiting: the call that needs a person's approval.
            sign: returns the item's id; called when ``output`` holds all earlier items.
        """
        yield from self._interrupt()
        item = create_mcp_approval_request_item("", _json(waiting.args), replace_surrogates(waiting.name), "oneturn")
        item["id"] = sign(item)
        yield self._added(item)
        yield self._done(item)

    def text(self, delta: str, attempt: int) -> Iterator[Event]:
        """Write a text delta of the answer. A new attempt closes the previous message as ``incomplete``."""
        delta = replace_surrogates(delta)
        if self._message is not None and self._message.attempt != attempt:
            yield from self._close_message(self._message, "incomplete", [])
        if self._message is None and self._interrupted is not None and self._interrupted.attempt == attempt:
            delta = self._interrupted.text + delta
        message = self._message or (yield from self._open_message(attempt))
        message.text += delta
        yield self._event("response.output_text.delta", **self._position(message), delta=delta, logprobs=[])

    def answer(self, text: str, annotations: list[dict[str, Any]]) -> Iterator[Event]:
        """Write the rest of the final answer: the text not streamed yet, its annotations, the end of its message.

        If the streamed text isn't a prefix of the answer, the message starts over. If the text is empty and calls are
        open, write nothing: the client has to run those calls.
        """
        text, annotations = replace_surrogates(text), plain(annotations)
        if self._open_calls and not text:
            return
        yield from self._close_calls()
        started = self._message or self._interrupted
        streamed, attempt = (started.text, started.attempt) if started is not None else ("", 0)
        if not text.startswith(streamed):
            yield from self.text(text, attempt + 1)
        elif text[len(streamed) :] or self._interrupted is not None:
            yield from self.text(text[len(streamed) :], attempt)
        message = self._message or (yield from self._open_message(attempt))
        for index, annotation in enumerate(annotations):
            kind = "response.output_text.annotation.added"
            yield self._event(kind, **self._position(message), annotation_index=index, annotation=annotation)
        yield from self._close_message(message, "completed", annotations)

    def _interrupt(self) -> Iterator[Event]:
        """Close an open message before another item: items must not overlap. A later message repeats its text."""
        if self._message is not None:
            interrupted = self._message
            yield from self._close_message(interrupted, "incomplete", [])
            self._interrupted = interrupted

    def completed(
        self,
        usage: Mapping[str, Any] | None,
        custom_outputs: Mapping[str, Any],
        answer_field: str | None = "answer",
    ) -> Iterator[Event]:
        """Write the terminal ``response.completed``, with all items, usage and custom outputs.

        ``answer_field``, the name of the output that is the message, is in ``metadata`` if it isn't ``answer``.
        """
        outputs = plain(custom_outputs)
        if self._message is not None:  # streamed text that isn't part of an answer
            yield from self._close_message(self._message, "incomplete", [])
        if not self._ends_with_calls():
            yield from self._close_calls()
        if answer_field != "answer":
            self.metadata["answer_field"] = answer_field or ""  # the protocol's values are texts
        response = {**self._response("completed"), "usage": usage, "custom_outputs": outputs}
        event = self._event("response.completed", response=response)
        yield {"type": event["type"], "custom_outputs": outputs, **event}

    def incomplete(self, reason: str, usage: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """Write the terminal ``response.incomplete`` of a stopped run, with the items finished so far."""
        yield from self._close_all()
        details = {"incomplete_details": {"reason": replace_surrogates(reason)}, "usage": usage}
        yield self._event("response.incomplete", response={**self._response("incomplete"), **details})

    def failed(self, failure: AgentError, usage: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """Write an ``error`` event and the terminal ``response.failed``. Items finished before stay valid."""
        yield from self._close_all()
        event = error_event(failure)
        yield self._event(event.pop("type"), **event)
        fields = {"error": {"code": event["code"], "message": event["message"]}, "usage": usage}
        yield self._event("response.failed", response={**self._response("failed"), **fields})

    def _close_all(self) -> Iterator[Event]:
        """Close the open message and write an output for every open call."""
        if self._message is not None:
            yield from self._close_message(self._message, "incomplete", [])
        yield from self._close_calls()

    def _ends_with_calls(self) -> bool:
        """Whether the output ends with the open calls: no item of another kind follows them."""
        trailing = itertools.takewhile(lambda item: item["type"] in _CALL_TYPES, reversed(self.output))
        ids = {item.get("call_id") for item in trailing}
        return all(call_id in ids for call_id, _ in self._open_calls.values())

    def _close_calls(self) -> Iterator[Event]:
        for call_id, (_, name) in list(self._open_calls.items()):
            yield from self.tool_result(ToolResult(call_id, name, _UNFINISHED_OUTPUT, is_error=True))

    def _open_message(self, attempt: int) -> Generator[Event, None, _OpenMessage]:
        message = self._message = _OpenMessage(_new_id("msg"), attempt)
        self._interrupted = None
        item = {"type": "message", "id": message.id, "role": "assistant", "status": "in_progress", "content": []}
        yield self._added(item)
        yield self._event("response.content_part.added", **self._position(message), part=_part("", []))
        return message

    def _close_message(self, message: _OpenMessage, status: str, annotations: list[dict[str, Any]]) -> Iterator[Event]:
        position = self._position(message)
        yield self._event("response.output_text.done", **position, text=message.text, logprobs=[])
        yield self._event("response.content_part.done", **position, part=_part(message.text, annotations))
        self._message = None
        yield self._done({**create_text_output_item(message.text, message.id, annotations), "status": status})

    def _call_id(self, id: str) -> str:
        """The program's id of a call, or a new id if an earlier call has the same one."""
        call_id = replace_surrogates(id)
        if call_id in self._call_ids:
            call_id = _new_id("call")
        self._call_ids.add(call_id)
        return call_id

    def _position(self, message: _OpenMessage) -> dict[str, Any]:
        return {"item_id": message.id, "output_index": len(self.output), "content_index": 0}

    def _added(self, item: Item) -> Event:
        return self._event("response.output_item.added", output_index=len(self.output), item=item)

    def _done(self, item: Item) -> Event:
        event = self._event("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)
        return event

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "output": self._lasting_output(status),
            **_FIXED_FIELDS,
            **({"metadata": self.metadata} if self.metadata else {}),
        }

    def _lasting_output(self, status: str) -> list[Item]:
        """The finished items without drafts: messages that were replaced, or that aren't part of the answer."""
        messages = [item for item in self.output if item["type"] == "message"]
        drafts = messages if status == "completed" else messages[:-1]
        draft_ids = {item["id"] for item in drafts if item["status"] == "incomplete"}
        return [item for item in self.output if item["id"] not in draft_ids]

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event


class _OpenMessage:
    def __init__(self, id: str, attempt: int):
        self.id = id
        self.attempt = attempt
        self.text = ""


def _part(text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations}


def _json(args: Mapping[str, Any]) -> str:
    return json.dumps(plain(args), ensure_ascii=False)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def url_citations(cited: Iterable[str], seen: Mapping[str, Document], text: str) -> list[dict[str, Any]]:
    """Return ``url_citation`` annotations for the cited documents, in the order cited.

    An annotation covers the first ``[id]`` of its document in the text, or the whole text without one.

    Args:
        cited: the document ids that the answer cites; ids that no tool returned are skipped.
        seen: the documents that the tools of this run returned, by id.
        text: the answer.
    """
    documents = [seen[id] for id in dict.fromkeys(cited) if id in seen]
    return [_annotation(document, *_span(f"[{document.id}]", text)) for document in documents]


def _span(mark: str, text: str) -> tuple[int, int]:
    start = text.find(mark)
    return (start, start + len(mark)) if start >= 0 else (0, len(text))


def _annotation(document: Document, start: int, end: int) -> dict[str, Any]:
    fields = source(document)
    span = {"start_index": start, "end_index": end}
    return {"type": "url_citation", "title": fields["title"], "url": fields["url"], **span}
