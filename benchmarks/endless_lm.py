"""An in-process LM that answers any number of requests and stores none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage, response_to_events


class EndlessLM(dspy.LM):
    """Replies with ``text``. Without ``text``, it calls ``look_up`` once per question, then finishes with an answer."""

    def __init__(self, text: str = "") -> None:
        super().__init__("endless/lm", engine=_Engine(text), cache=False, num_retries=0)


class _Engine:
    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, text: str):
        self._text = text

    def complete(self, request: Request) -> Response:
        steps = sum(message.role == "assistant" for message in request.messages)
        name, args = ("finish", {"answer": "the answer " * 20}) if steps else ("look_up", {"word": "tea"})
        text = self._text or json.dumps({"thought": "So.", "tool_call": {"name": name, "args": args}})
        usage = Usage(input_tokens=100, output_tokens=30, total_tokens=130)
        message = Message.assistant(TextPart(text))
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def stream(self, request: Request) -> Iterator[Any]:
        yield from response_to_events(self.complete(request))
