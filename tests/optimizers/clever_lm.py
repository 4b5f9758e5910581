"""An LM for optimizers: it does the agent's steps, and fills whatever fields a prompt of an optimizer asks for."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from oneturn.testing import sections

_FIELD = re.compile(r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`")


class CleverLM(dspy.LM):
    """Deterministic: what it says depends on the whole prompt, and on nothing else.

    Args:
        step: gives an agent's reply to a prompt that asks for these fields.
        texts: what it writes where an optimizer asks for a field of this name, such as ``proposed_instruction``; with
            none it mumbles.

    Attributes:
        asked: the prompts, in order, and whether they were an optimizer's.
        room: tokens that the latest reply to an optimizer might have.
    """

    def __init__(self, step: Callable[[str, list[str]], str], texts: dict[str, str]):
        self.asked: list[tuple[bool, str]] = []
        super().__init__("clever/lm", engine=_Engine(step, texts, self.asked), cache=False, num_retries=0)

    @property
    def room(self) -> int | None:
        return self.engine.room

    @property
    def reflections(self) -> list[str]:
        """The optimizers' prompts."""
        return [text for optimizers, text in self.asked if optimizers]

    @property
    def steps(self) -> list[str]:
        """The agent's prompts."""
        return [text for optimizers, text in self.asked if not optimizers]


class _Engine:
    supports_response_schema = False
    supported_params = frozenset({"response_format", "temperature"})

    def __init__(self, step: Callable[[str, list[str]], str], texts: dict[str, str], asked: list[tuple[bool, str]]):
        self._step = step
        self._texts = texts
        self._asked = asked
        self.room: int | None = None

    def complete(self, request: Request) -> Response:
        system = (
            request.system if isinstance(request.system, str) else "".join(part.text for part in request.system or ())
        )
        texts = [system, *(part.text for message in request.messages for part in message.parts)]
        prompt = "\n".join(texts)
        wanted = _FIELD.findall(texts[-1].rpartition("Respond with")[2]) if "Respond with" in texts[-1] else []
        fields = [name for name in wanted if name != "completed"]
        ours = not fields or bool(set(fields) & {"next_thought", "answer"})
        self._asked.append((not ours, prompt))
        if not ours:
            self.room = request.config.max_tokens
            if not self._texts:
                return self._said(request, prompt, "Well …")
            told = {name: self._texts.get(name, self._texts["instructions"]) for name in fields}
            text = json.dumps(told) if "Respond with a JSON object" in prompt else sections(**told)
        else:
            text = self._step(prompt, fields)
        return self._said(request, prompt, text)

    def _said(self, request: Request, prompt: str, text: str) -> Response:
        usage = Usage(input_tokens=len(prompt), output_tokens=len(text))
        return Response(None, request.model, Message.assistant(TextPart(text)), "stop", usage)

    def stream(self, request: Request) -> Iterator[Any]:
        raise AssertionError("nobody reads along")


def luck(prompt: str) -> int:
    """A number from 0 to 9 that depends on the whole prompt."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 10


def finished(answer: str) -> str:
    """Our ReAct's last step."""
    return json.dumps({"tool_call": {"name": "finish", "args": {"answer": answer}}})


def wavering(step: Callable[[str, list[str], int], str]) -> Callable[[str, list[str]], str]:
    """The step as an LM at a temperature does it: told how often it was asked this, it may say something else."""
    asked: Counter[str] = Counter()

    def said(prompt: str, fields: list[str]) -> str:
        asked[prompt] += 1
        return step(prompt, fields, asked[prompt])

    return said
