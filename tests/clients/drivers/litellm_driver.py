"""litellm's ``responses``."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no download

import litellm
from cells import CLOCK, Answer, Left, run_cells
from response_items import decision, outputs, read_response

litellm.suppress_debug_info = True
# Of a model that it doesn't know, litellm asks for the whole answer and cuts it into pieces itself.
litellm.register_model(
    {"agent": {"litellm_provider": "openai", "mode": "responses", "supports_native_streaming": True}}
)


class Conversation:
    """The history is the list of items: questions, and the outputs as they came."""

    def __init__(self, cell: dict[str, Any]):
        self._cell = cell
        self._input: Any = []

    def ask(self, question: str) -> dict[str, Any]:
        """Ask; a plain question is a string."""
        self._input = question if self._cell["plain"] else [*self._input, {"role": "user", "content": question}]
        shown = self._respond()
        if self._cell["client_tool"]:
            results, ran = outputs(self._output)
            self._input += results
            return self._respond() | {"ran": ran}
        return shown

    def decide(self, approve: bool) -> dict[str, Any]:
        """Answer the approval request."""
        self._input = [*self._input, decision(self._output, approve)]
        return self._respond()

    def _respond(self) -> dict[str, Any]:
        options: dict[str, Any] = {"timeout": self._cell["timeout"], "num_retries": 0, "max_retries": 0}
        if self._cell["custom_inputs"]:
            options["extra_body"] = {"custom_inputs": self._cell["custom_inputs"]}
        if self._cell["structured"]:
            options["text_format"] = Answer
        if self._cell["client_tool"]:
            options["tools"] = [{"type": "function", "strict": True, **CLOCK}]
        response = litellm.responses(
            model="openai/agent",
            input=self._input,
            api_base=self._cell["url"],
            api_key="none",
            stream=self._cell["stream"],
            **options,
        )
        deltas = 0
        if self._cell["stream"]:
            events = response
            for event in events:
                if event.type == "response.output_text.delta":
                    deltas += 1
                    if self._cell["leave"]:
                        events.close()
                        raise Left
                response = getattr(event, "response", response)
        self._output = response.output
        if not isinstance(self._input, str):
            self._input = [*self._input, *[_item(item) for item in response.output]]
        shown = read_response(response, deltas)
        if self._cell["structured"]:
            shown["parsed"] = json.loads(shown["text"])
        return shown


def _item(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else item.model_dump(exclude_none=True)


if __name__ == "__main__":
    run_cells(Conversation)
