"""OpenAI's chat protocol as Databricks speaks it: its errors have a shape of their own."""

from __future__ import annotations

import json
import re
from typing import Any

from dspy._vendor.lm15.errors import ProviderError
from dspy.lm15 import AsyncOpenAIChatLM, OpenAIChatCompat, OpenAIChatLM

CHAT = OpenAIChatCompat(instruction_role="system", max_tokens_field="max_tokens")

_TOO_LONG = re.compile(r"context.?(?:length|window)|(?:prompt|input)\b.*\btoo long|maximum.*tokens", re.I)


class EndpointClient(OpenAIChatLM):
    """Asks an endpoint at once."""

    def normalize_error(self, status: int, body: str) -> ProviderError:
        """The refusal as lm15 names it."""
        return super().normalize_error(status, _as_openai(status, body))


class AsyncEndpointClient(AsyncOpenAIChatLM):
    """Asks an endpoint from an event loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        inner: Any = self._inner  # type: ignore[has-type]  # it reads answers and refusals
        self._inner = EndpointClient(
            api_key=self.api_key, transport=inner.transport, base_url=self.base_url, compat=self.compat
        )


def _as_openai(status: int, body: str) -> str:
    """``{"error_code": …, "message": …}`` in OpenAI's envelope; anything else as it is."""
    try:
        told = json.loads(body)
    except ValueError:
        return body
    if not isinstance(told, dict) or not isinstance(told.get("message"), str) or "error" in told:
        return body
    message = told["message"]
    too_long = status == 400 and _TOO_LONG.search(message)
    code = "context_length_exceeded" if too_long else told.get("error_code")
    return json.dumps({"error": {"message": message, "code": code}})
