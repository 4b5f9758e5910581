"""A fake LM for optimizers: it replies to the agent's steps and fills the fields that optimizers request."""

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
    """A deterministic LM: the reply depends on the prompt only.

    Args:
        step: returns the reply to an agent's prompt that requests these fields.
        texts: the values of the fields that an optimizer requests, such as ``proposed_instruction``, by name; if empty,
            the replies can't be parsed.

    Attributes:
        prompts: the prompts, in order, each with whether an optimizer sent it.
        reply_limit: ``max_tokens`` of the latest request of an optimizer.
    """

    def __init__(self, step: Callable[[str, list[str]], str], texts: dict[str, str]):
        self.prompts: list[tuple[bool, str]] = []
        super().__init__("clever/lm", engine=_Engine(step, texts, self.prompts), cache=False, num_retries=0)

    @property
    def reply_limit(self) -> int | None:
        return self.engine.reply_limit

    @property
    def reflections(self) -> list[str]:
        """The optimizers' prompts."""
        return [text for from_optimizer, text in self.prompts if from_optimizer]

    @property
    def steps(self) -> list[str]:
        """The agent's prompts."""
        return [text for from_optimizer, text in self.prompts if not from_optimizer]


class _Engine:
    supports_response_schema = False
    supported_params = frozenset({"response_format", "temperature"})

    def __init__(self, step: Callable[[str, list[str]], str], texts: dict[str, str], prompts: list[tuple[bool, str]]):
        self._step = step
        self._texts = texts
        self._prompts = prompts
        self.reply_limit: int | None = None

    def complete(self, request: Request) -> Response:
        system = (
            request.system if isinstance(request.system, str) else "".join(part.text for part in request.system or ())
        )
        texts = [system, *(part.text for message in request.messages for part in message.parts)]
        prompt = "\n".join(texts)
        requested = _FIELD.findall(texts[-1].rpartition("Respond with")[2]) if "Respond with" in texts[-1] else []
        fields = [name for name in requested if name != "completed"]
        from_agent = not fields or bool(set(fields) & {"next_thought", "answer"})
        self._prompts.append((not from_agent, prompt))
        if not from_agent:
            self.reply_limit = request.config.max_tokens
            if not self._texts:
                return self._response(request, prompt, "Well …")
            values = {name: self._texts.get(name, self._texts["instructions"]) for name in fields}
            text = json.dumps(values) if "Respond with a JSON object" in prompt else sections(**values)
        else:
            text = self._step(prompt, fields)
        return self._response(request, prompt, text)

    def _response(self, request: Request, prompt: str, text: str) -> Response:
        usage = Usage(input_tokens=len(prompt), output_tokens=len(text))
        return Response(None, request.model, Message.assistant(TextPart(text)), "stop", usage)

    def stream(self, request: Request) -> Iterator[Any]:
        raise AssertionError("optimizers don't stream the LM")


def digit(prompt: str) -> int:
    """Return a number from 0 to 9 derived from the prompt."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 10


def finished(answer: str) -> str:
    """Return the last step of a oneturn.ReAct."""
    return json.dumps({"tool_call": {"name": "finish", "args": {"answer": answer}}})


def varying(step: Callable[[str, list[str], int], str]) -> Callable[[str, list[str]], str]:
    """Imitate a temperature above 0: the reply also depends on how often the prompt was sent before."""
    repeats: Counter[str] = Counter()

    def reply(prompt: str, fields: list[str]) -> str:
        repeats[prompt] += 1
        return step(prompt, fields, repeats[prompt])

    return reply
