"""An LM that pauses in the middle of its answer until the test releases it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from dspy.lm15 import Message, Request, Response, TextPart, Usage, response_to_events


class GatedEngine:
    """Streams the beginning of an answer, waits for ``go_on``, then streams a thousand more deltas."""

    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, beginning: str) -> None:
        self.beginning = beginning
        self.begun, self.go_on, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.requests = self.written = 0

    def complete(self, request: Request) -> Response:
        raise AssertionError("this LM streams")

    def stream(self, request: Request) -> Iterator[Any]:
        self.requests += 1
        message = Message.assistant(TextPart("a"))
        start, delta, _ = response_to_events(Response(None, request.model, message, "stop", Usage()))
        try:
            yield start
            yield replace(delta, delta=replace(delta.delta, text=self.beginning))
            self.begun.set()
            assert self.go_on.wait(30)
            for _ in range(1000):
                self.written += 1
                yield delta
        finally:
            self.closed.set()
