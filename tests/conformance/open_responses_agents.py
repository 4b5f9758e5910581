"""Two agents that answer over Open Responses: one by the book, and one as a quick adapter would."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Json = dict[str, Any]
RESOURCE: Json = {
    "object": "response",
    "completed_at": None,
    "status": "in_progress",
    "incomplete_details": None,
    "model": "by-the-book",
    "previous_response_id": None,
    "instructions": None,
    "output": [],
    "error": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "usage": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}
USAGE: Json = {
    "input_tokens": 3,
    "output_tokens": 2,
    "total_tokens": 5,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


def _question(body: Json) -> str:
    """Return the text of the last user message."""
    if isinstance(body["input"], str):
        return str(body["input"])
    content = next((item["content"] for item in reversed(body["input"]) if item.get("role") == "user"), "")
    return content if isinstance(content, str) else str(content[0]["text"])


def _is_valid(body: Any) -> bool:
    items = body.get("input") if isinstance(body, dict) else None
    if isinstance(items, str):
        return True
    return isinstance(items, list) and all("content" in item or "call_id" in item for item in items)


class ByTheBook:
    """Echoes the question, calls the client's tools, and remembers its answers.

    Args:
        fails: whether each stream ends with an error, nested as the specification wants it.
    """

    def __init__(self, fails: bool = False):
        self._fails = fails
        self._stored: set[str] = set()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/responses", self.respond, methods=["POST"])])

    async def respond(self, request: Request) -> Response:
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not _is_valid(body):
            error = {"type": "invalid_request", "code": None, "message": "Send an input.", "param": "input"}
            return JSONResponse({"error": error}, 400)
        if body.get("previous_response_id") not in {None, *self._stored}:
            error = {"type": "not_found", "code": None, "message": "No such response.", "param": "previous_response_id"}
            return JSONResponse({"error": error}, 404)
        events = list(self._events(body))
        if not body.get("stream"):
            return JSONResponse(next(event["response"] for event in reversed(events) if "response" in event))
        lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
        return Response("".join([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")

    def _events(self, body: Json) -> Iterator[Json]:
        for number, event in enumerate(self._unnumbered(body)):
            yield {"sequence_number": number, **event}

    def _unnumbered(self, body: Json) -> Iterator[Json]:
        created = int(time.time())
        response = {**RESOURCE, "id": _id("resp"), "created_at": created, "tools": _tools(body)}
        self._stored.add(response["id"])
        yield {"type": "response.created", "response": response}
        yield {"type": "response.in_progress", "response": response}
        if self._fails and body.get("stream"):
            error = {"code": "overloaded", "message": "Too many requests."}
            yield {"type": "error", "error": {"type": "too_many_requests", "param": None, **error, "code": None}}
            yield {"type": "response.failed", "response": {**response, "status": "failed", "error": error}}
            return
        output = []
        for index, item in enumerate(self._items(body)):
            if item["type"] == "extension:lookup":
                yield {"type": "response.output_item.added", "output_index": index, "item": item}
                yield {"type": "response.output_item.done", "output_index": index, "item": item}
            else:
                yield from (_call if item["type"] == "function_call" else _message)(item, index)
            output.append(item)
        completed = {"status": "completed", "completed_at": created, "output": output, "usage": USAGE}
        yield {"type": "response.completed", "response": {**response, **completed}}

    def _items(self, body: Json) -> Iterator[Json]:
        done = body["input"][-1].get("type") == "function_call_output" if isinstance(body["input"], list) else False
        if body.get("tools") and not done:
            arguments = '{"location": "San Francisco, CA"}'
            yield {
                **_item("function_call", "fc"),
                "call_id": _id("call"),
                "name": "get_weather",
                "arguments": arguments,
            }
            return
        yield _item("extension:lookup", "lookup")
        text = "64 degrees." if done else f"You said: {_question(body)}"
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        yield {**_item("message", "msg"), "role": "assistant", "content": [part]}


def _tools(body: Json) -> list[Json]:
    return [{"description": None, "parameters": None, "strict": None, **tool} for tool in body.get("tools") or []]


def _item(type: str, prefix: str) -> Json:
    return {"type": type, "id": _id(prefix), "status": "completed"}


def _call(item: Json, index: int) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index}
    added = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": added}
    yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
    yield {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _message(item: Json, index: int) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = item["content"][0]
    added = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": added}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    yield {"type": "response.output_text.delta", **place, "delta": part["text"], "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


class Naive(ByTheBook):
    """The same, as a quick adapter would: its own calls as ``function_call``, only the fields that it needs."""

    async def respond(self, request: Request) -> Response:
        response = await super().respond(request)
        if response.media_type != "text/event-stream":
            body = json.loads(response.body)
            return response if body.get("error") else JSONResponse(_reduced(body))
        lines = bytes(response.body).decode().split("\n")
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in _with_own_call(events))
        return Response(text, media_type="text/event-stream")

    def _items(self, body: Json) -> Iterator[Json]:
        call_id = _id("call")
        yield {**_item("function_call", "fc"), "call_id": call_id, "name": "search_handbook", "arguments": "{}"}
        text = f"You said: {_question(body)}"
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        yield {**_item("message", "msg"), "role": "assistant", "content": [part]}


def _reduced(response: Mapping[str, Any]) -> Json:
    kept = {name: response[name] for name in ("id", "object", "model", "status", "output", "usage")}
    return {**kept, "created_at": time.time(), "output": _answered(kept["output"])}


def _answered(items: list[Json]) -> list[Json]:
    """Return the items, with an output after each call."""
    answered: list[Json] = []
    for item in items:
        answered.append(item)
        if item["type"] == "function_call":
            answered.append(
                {
                    "type": "function_call_output",
                    "id": f"out_{item['id']}",
                    "call_id": item["call_id"],
                    "output": "Yes.",
                }
            )
    return answered


def _with_own_call(events: list[Json]) -> list[Json]:
    for event in events:
        if "response" in event:
            event["response"] = _reduced(event["response"])
    position = next(n for n, event in enumerate(events) if event["type"] == "response.output_item.done") + 1
    output = _answered([events[position - 1]["item"]])[1]
    for event in events[position:]:
        if "output_index" in event:
            event["output_index"] += 1
    item = {"output_index": 1, "item": output}
    events[position:position] = [
        {"type": "response.output_item.added", **item},
        {"type": "response.output_item.done", **item},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]
