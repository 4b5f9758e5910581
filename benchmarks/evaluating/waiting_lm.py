"""An in-process LM with a fixed latency and negligible CPU time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

_TEXT = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"


class WaitingLM(dspy.LM):
    """Answers "yes" after ``latency`` seconds, and counts its calls in ``answered``."""

    def __init__(self, latency: float):
        self.counter = _Counter(latency)
        super().__init__("waiting/lm", engine=self.counter, cache=False, num_retries=0)

    @property
    def answered(self) -> int:
        """The number of calls."""
        return self.counter.answered


class _Counter:
    supports_response_schema = False
    supported_params = frozenset({"temperature"})

    def __init__(self, latency: float):
        self.answered = 0
        self._latency = latency
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Counter:
        return self

    def complete(self, request: Request) -> Response:
        with self._lock:
            self.answered += 1
        time.sleep(self._latency)
        message = Message.assistant(TextPart(_TEXT))
        usage = Usage(input_tokens=100, output_tokens=10)
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def stream(self, request: Request) -> Iterator[Any]:
        raise NotImplementedError("a batch evaluation doesn't stream the LM")


def waiting_program(latency: float) -> dspy.Module:
    """Build a program that makes one call of a ``WaitingLM``."""
    program = dspy.Predict("question -> answer")
    program.set_lm(WaitingLM(latency))
    return program
