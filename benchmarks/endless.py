"""An LM in this process that answers for ever, and keeps nothing of what it was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage, response_to_events


class EndlessLM(dspy.LM):
    """Says ``text``; without one, looks up one word with each question, then answers with it."""

    def __init__(self, text: str = "") -> None:
        super().__init__("endless/lm", engine=_Engine(text), cache=False, num_retries=0)


class _Engine:
    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, text: str):
        self._text = text

    def complete(self, request: Request) -> Response:
        asked = sum(message.role == "assistant" for message in request.messages)
        name, args = ("finish", {"answer": "the answer " * 20}) if asked else ("look_up", {"word": "tea"})
        text = self._text or json.dumps({"thought": "So.", "tool_call": {"name": name, "args": args}})
        usage = Usage(input_tokens=100, output_tokens=30, total_tokens=130)
        message = Message.assistant(TextPart(text))
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def stream(self, request: Request) -> Iterator[Any]:
        yield from response_to_events(self.complete(request))
