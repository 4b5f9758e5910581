"""openai's Python SDK, 2.x and 3.x."""

from __future__ import annotations

from typing import Any

from cells import CLOCK, Answer, Left, run_cells
from openai import OpenAI
from response_items import decision, outputs, read_response


class Conversation:
    """The history is the list of items: questions, and the outputs as they came."""

    def __init__(self, cell: dict[str, Any]):
        self._cell = cell
        client = OpenAI(base_url=cell["url"], api_key="none", max_retries=0, timeout=cell["timeout"])
        self._responses = client.responses
        self._input: Any = []

    def ask(self, question: str) -> dict[str, Any]:
        """Ask; a plain question is a string, as in every tutorial."""
        self._input = question if self._cell["plain"] else [*self._input, {"role": "user", "content": question}]
        shown = self._respond()
        self._input = [*self._input, *self._output]
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
        options: dict[str, Any] = {"model": "agent", "input": self._input}
        if self._cell["custom_inputs"]:
            options["extra_body"] = {"custom_inputs": self._cell["custom_inputs"]}
        if self._cell["client_tool"]:
            options["tools"] = [{"type": "function", "strict": True, **CLOCK}]
        if self._cell["stream"]:
            return self._stream(options)
        if self._cell["structured"]:
            response = self._responses.parse(text_format=Answer, **options)
        else:
            response = self._responses.create(**options)
        return self._read(response)

    def _stream(self, options: dict[str, Any]) -> dict[str, Any]:
        if self._cell["structured"]:
            options["text_format"] = Answer
        deltas, text = 0, ""
        try:
            with self._responses.stream(**options) as stream:
                for event in stream:
                    if event.type == "response.output_text.delta":
                        deltas, text = deltas + 1, text + event.delta
                        if self._cell["leave"]:
                            raise Left
                return self._read(stream.get_final_response(), deltas)
        except Exception as error:
            error.partial_text = text  # type: ignore[attr-defined]
            raise

    def _read(self, response: Any, deltas: int = 0) -> dict[str, Any]:
        self._output = response.output
        shown = read_response(response, deltas)
        if self._cell["structured"] and response.output_parsed is not None:
            shown["parsed"] = response.output_parsed.model_dump()
        return shown


if __name__ == "__main__":
    run_cells(Conversation)
