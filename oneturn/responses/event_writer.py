"""Steps as Responses stream events (OpenAI API reference, "Streaming events").

One writer serves one response. It numbers the events, gives every item an id and a place, and keeps the
finished items, so that the terminal event repeats exactly what was streamed.
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
    ResponsesAgentStreamEvent,
    create_function_call_item,
    create_function_call_output_item,
    create_mcp_approval_request_item,
    create_reasoning_item,
    create_text_output_item,
)

from oneturn.core.serialization import plain, replace_surrogates
from oneturn.core.steps import ToolCall, ToolProgress, ToolResult, WaitingCall, source
from oneturn.errors import ProgramError

Event = ResponsesAgentStreamEvent
Item = dict[str, Any]

# What OpenAI's Response always has and an agent has no say in: its tools are its own business.
_UNUSED = {"model": "agent", "tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
_CALLING = ("function_call", "function_call_output", "mcp_approval_request")
_UNFINISHED = "Error: the run ended before this tool did."
# A failed response has one of OpenAI's own codes; the error event before it has ours, which tells more.
_OPENAI_CODES = {
    "rate_limit_exceeded": "rate_limit_exceeded",
    "invalid_request": "invalid_prompt",
    "context_length_exceeded": "invalid_prompt",
}


class EventWriter:
    """Writes the events of one response, in order."""

    def __init__(self) -> None:
        self.response_id = _new_id("resp")
        self.output: list[Item] = []
        self._created_at = time.time()
        self._sequence = 0
        self._message: _OpenMessage | None = None
        self._interrupted: _OpenMessage | None = None
        self._open_calls: dict[str, tuple[str, str]] = {}  # the program's id: the stream's, and the tool's name
        self._call_ids: set[str] = set()

    def start(self) -> Iterator[Event]:
        """``response.created`` and ``response.in_progress``."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress"))

    def thought(self, text: str) -> Iterator[Event]:
        """A ``reasoning`` item with its summary."""
        yield from self._interrupt()
        text = replace_surrogates(text)
        item = create_reasoning_item(_new_id("rs"), text)
        place = {"item_id": item["id"], "output_index": len(self.output), "summary_index": 0}
        part = {"type": "summary_text", "text": text}
        yield self._added({**item, "summary": [], "status": "in_progress"})
        yield self._event("response.reasoning_summary_part.added", **place, part={**part, "text": ""})
        yield self._event("response.reasoning_summary_text.delta", **place, delta=text)
        yield self._event("response.reasoning_summary_text.done", **place, text=text)
        yield self._event("response.reasoning_summary_part.done", **place, part=part)
        yield self._done({**item, "status": "completed"})

    def tool_call(self, call: ToolCall) -> Iterator[Event]:
        """A ``function_call`` item with its arguments.

        Raises:
            ProgramError: another call has the same ``call_id`` and no result yet.
        """
        if call.call_id in self._open_calls:
            raise ProgramError(f"The program makes the call {call.call_id!r} again before it has given its result.")
        yield from self._interrupt()
        arguments, name = _json(call.args), replace_surrogates(call.name)
        call_id = self._call_id(call.call_id)
        self._open_calls[call.call_id] = call_id, name
        item = create_function_call_item(_new_id("fc"), call_id, name, arguments)
        place = {"item_id": item["id"], "output_index": len(self.output)}
        yield self._added({**item, "arguments": "", "status": "in_progress"})
        yield self._event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._event("response.function_call_arguments.done", **place, name=name, arguments=arguments)
        yield self._done({**item, "status": "completed"})

    def tool_progress(self, told: ToolProgress) -> Iterator[Event]:
        """A ``response.in_progress`` that keeps the stream alive, and tells in ``progress`` how a tool gets on.

        Nothing, if the tool's call has its result: it was given up.
        """
        if told.call_id not in self._open_calls:
            return
        call_id, name = self._open_calls[told.call_id]
        known: dict[str, Any] = {"call_id": call_id, "name": name, "message": told.message, "fraction": told.fraction}
        if told.item is not None:
            known["item"] = told.item
        yield self._event("response.in_progress", response=self._response("in_progress"), progress=plain(known))

    def working(self) -> Event:
        """A ``response.in_progress`` that keeps the stream alive while there is nothing to tell."""
        return self._event("response.in_progress", response=self._response("in_progress"))

    def tool_result(self, result: ToolResult) -> Iterator[Event]:
        """A ``function_call_output`` item, paired with its call by ``call_id``.

        Raises:
            ProgramError: there is no such call that waits for its result.
        """
        if result.call_id not in self._open_calls:
            raise ProgramError(
                f"The program gives a result of {result.name}, call {result.call_id!r}; no such call waits for one."
            )
        yield from self._interrupt()
        call_id, _ = self._open_calls[result.call_id]
        item = {**create_function_call_output_item(call_id, replace_surrogates(result.output)), "id": _new_id("fco")}
        if found := [source(document) for document in result.documents]:
            item["sources"] = plain(found)
        del self._open_calls[result.call_id]
        yield self._added({**item, "output": "", "status": "in_progress"})
        yield self._done({**item, "status": "completed"})

    def approval_request(self, waiting: WaitingCall, sign: Callable[[Item], str]) -> Iterator[Event]:
        """An ``mcp_approval_request`` item: the turn ends, and waits for a person.

        Args:
            waiting: the call that a person has to approve.
            sign: gives the item its id, once all items before it are in ``output``.
        """
        yield from self._interrupt()
        item = create_mcp_approval_request_item("", _json(waiting.args), replace_surrogates(waiting.name), "oneturn")
        item["id"] = sign(item)
        yield self._added(item)
        yield self._done(item)

    def text(self, delta: str, attempt: int) -> Iterator[Event]:
        """A piece of the answer. A new attempt closes the message begun before as ``incomplete``."""
        delta = replace_surrogates(delta)
        if self._message is not None and self._message.attempt != attempt:
            yield from self._close_message(self._message, "incomplete", [])
        if self._message is None and self._interrupted is not None and self._interrupted.attempt == attempt:
            delta = self._interrupted.text + delta
        message = self._message or (yield from self._open_message(attempt))
        message.text += delta
        yield self._event("response.output_text.delta", **self._place(message), delta=delta, logprobs=[])

    def answer(self, text: str, annotations: list[dict[str, Any]]) -> Iterator[Event]:
        """The answer as it stands in the end: what of it hasn't been told, its annotations, the end of its message.

        Where something else was told, it starts over. No message comes where there is no text, but calls that have no
        result: they are the client's to make.
        """
        text, annotations = replace_surrogates(text), plain(annotations)
        if self._open_calls and not text:
            return
        yield from self._close_calls()
        begun = self._message or self._interrupted
        told, attempt = (begun.text, begun.attempt) if begun is not None else ("", 0)
        if not text.startswith(told):
            yield from self.text(text, attempt + 1)
        elif text[len(told) :] or self._interrupted is not None:
            yield from self.text(text[len(told) :], attempt)
        message = self._message or (yield from self._open_message(attempt))
        for index, annotation in enumerate(annotations):
            kind = "response.output_text.annotation.added"
            yield self._event(kind, **self._place(message), annotation_index=index, annotation=annotation)
        yield from self._close_message(message, "completed", annotations)

    def _interrupt(self) -> Iterator[Event]:
        """Close a message that another item comes in the midst of: one item at a time. Its text starts over after."""
        if self._message is not None:
            interrupted = self._message
            yield from self._close_message(interrupted, "incomplete", [])
            self._interrupted = interrupted

    def completed(self, usage: Mapping[str, Any] | None, custom_outputs: Mapping[str, Any]) -> Iterator[Event]:
        """The terminal ``response.completed``, with all items, usage and custom outputs."""
        outputs = plain(custom_outputs)
        if self._message is not None:  # text that isn't of the answer
            yield from self._close_message(self._message, "incomplete", [])
        if not self._ends_with_calls():
            yield from self._close_calls()
        response = {**self._response("completed"), "usage": usage, "custom_outputs": outputs}
        yield self._event("response.completed", response=response, custom_outputs=outputs)

    def incomplete(self, reason: str) -> Iterator[Event]:
        """The terminal ``response.incomplete``: the run was stopped; what is known stays."""
        yield from self._close_all()
        response = {**self._response("incomplete"), "incomplete_details": {"reason": replace_surrogates(reason)}}
        yield self._event("response.incomplete", response=response)

    def failed(self, code: str, message: str) -> Iterator[Event]:
        """An ``error`` event, which MLflow's readers know, and the terminal ``response.failed``, which OpenAI's do.

        What was finished before stays valid.
        """
        message = replace_surrogates(message)
        yield from self._close_all()
        yield self._event("error", code=code, message=message, param=None)
        error = {"code": _OPENAI_CODES.get(code, "server_error"), "message": message}
        response = {**self._response("failed"), "error": error}
        yield self._event("response.failed", response=response)

    def _close_all(self) -> Iterator[Event]:
        """Leave nothing half done: a message that was begun ends, and every call has its output."""
        if self._message is not None:
            yield from self._close_message(self._message, "incomplete", [])
        yield from self._close_calls()

    def _ends_with_calls(self) -> bool:
        """Whether nothing but other calls has come after those that have no result."""
        last = itertools.takewhile(lambda item: item["type"] in _CALLING, reversed(self.output))
        ids = {item.get("call_id") for item in last}
        return all(call_id in ids for call_id, _ in self._open_calls.values())

    def _close_calls(self) -> Iterator[Event]:
        for call_id, (_, name) in list(self._open_calls.items()):
            yield from self.tool_result(ToolResult(call_id, name, _UNFINISHED, is_error=True))

    def _open_message(self, attempt: int) -> Generator[Event, None, _OpenMessage]:
        message = self._message = _OpenMessage(_new_id("msg"), attempt)
        self._interrupted = None
        item = {"type": "message", "id": message.id, "role": "assistant", "status": "in_progress", "content": []}
        yield self._added(item)
        yield self._event("response.content_part.added", **self._place(message), part=_part("", []))
        return message

    def _close_message(self, message: _OpenMessage, status: str, annotations: list[dict[str, Any]]) -> Iterator[Event]:
        place = self._place(message)
        yield self._event("response.output_text.done", **place, text=message.text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=_part(message.text, annotations))
        self._message = None
        yield self._done({**create_text_output_item(message.text, message.id, annotations), "status": status})

    def _call_id(self, id: str) -> str:
        """The program's own id of a call; a new one if it had another of this id before."""
        call_id = replace_surrogates(id)
        if call_id in self._call_ids:
            call_id = _new_id("call")
        self._call_ids.add(call_id)
        return call_id

    def _place(self, message: _OpenMessage) -> dict[str, Any]:
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
            "output": list(self.output),
            **_UNUSED,
        }

    def _event(self, kind: str, **fields: Any) -> Event:
        event = Event.model_validate({"type": kind, "sequence_number": self._sequence, **fields})
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
    """``url_citation`` annotations for the cited ids that the run has really seen, in the order cited.

    A citation of something that no tool gave is not a source, and gets none. Each covers the place where the text
    names it (``[id]``), or else the whole text: the answer as a whole rests on its sources.
    """
    known = [seen[id] for id in dict.fromkeys(cited) if id in seen]
    return [_annotation(document, *_place(f"[{document.id}]", text)) for document in known]


def _place(mark: str, text: str) -> tuple[int, int]:
    start = text.find(mark)
    return (start, start + len(mark)) if start >= 0 else (0, len(text))


def _annotation(document: Document, start: int, end: int) -> dict[str, Any]:
    told = source(document)
    place = {"start_index": start, "end_index": end}
    return {"type": "url_citation", "title": told["title"], "url": told["url"], **place}
