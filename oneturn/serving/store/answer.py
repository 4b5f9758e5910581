"""The answer to a request with an idempotency key, recorded while it is sent."""

from __future__ import annotations

import json
import zlib
from typing import Any

from oneturn.errors import AgentError


class RecordedAnswer:
    """What a request was answered: the bytes of a stream, a response, or an error.

    Attributes:
        is_retryable: whether the client was told to send the request again; the answer isn't kept then.
        response_id: the id of the response in it.
    """

    def __init__(self) -> None:
        self.is_retryable = False
        self.response_id: str | None = None
        self._value: Any = None

    def add(self, value: bytes | dict[str, Any] | AgentError) -> None:
        """Add a chunk of the stream, the response, or the error."""
        if isinstance(value, bytes):
            self._value = (self._value or bytearray()) + value
        else:
            self._value = value
        if isinstance(value, AgentError):
            self.is_retryable = value.retryable

    @property
    def value(self) -> Any:
        """The answer: all bytes of the stream, or what was added."""
        return bytes(self._value) if isinstance(self._value, bytearray) else self._value

    def encode(self) -> bytes:
        """Return the answer in the form in which it is kept."""
        value: Any = self._value
        if isinstance(value, AgentError):
            fields = {"message": str(value), "code": value.code, "status": value.status, "param": value.param}
            kept: dict[str, Any] = {"error": fields}
        else:
            kept = {"stream": bytes(value).decode()} if isinstance(value, bytearray) else {"response": value}
        return zlib.compress(json.dumps(kept).encode(), 1)

    @classmethod
    def decode(cls, data: bytes) -> RecordedAnswer:
        """Return the answer that was encoded."""
        kept, answer = json.loads(zlib.decompress(data)), cls()
        if "error" in kept:
            answer.add(AgentError(**kept["error"]))
        else:
            answer.add(kept["stream"].encode() if "stream" in kept else kept["response"])
        return answer
