"""Test your own agent without a model: an LM that answers from a script.

    from oneturn.testing import ScriptedLM, call, finish

    def test_the_agent_looks_it_up():
        with ScriptedLM(call("search", query="fees"), finish(answer="4 euros")) as lm, dspy.context(lm=lm):
            assert program(question="What are the fees?").answer == "4 euros"
        assert "4 euros" in lm.requests[-1].text

A call beyond the script fails, and so do replies that nobody asked for. It is a real ``dspy.LM`` with an engine of its
own, so that caching, streaming, usage, callbacks and error types are DSPy's.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import dspy
from dspy._vendor.lm15.types import StreamEvent  # not re-exported by dspy.lm15
from dspy.lm15 import Message, Request, Response, TextPart, Usage, response_to_events

from oneturn.tools.registry import FINISH


class ScriptError(BaseException):
    """The LM was asked more often, or less often, than its script says.

    Not an ``Exception``, as pytest's own failures aren't: what turns failures into answers must not turn this into one.
    """


@dataclasses.dataclass(frozen=True)
class ScriptedRequest:
    """What the LM was asked.

    Attributes:
        messages: the chat, as ``{"role": …, "content": …}`` with texts, the system message first.
        schema: the JSON schema that the reply had to fit; ``None`` if there was none.
    """

    messages: tuple[Mapping[str, str], ...]
    schema: Mapping[str, Any] | None

    @property
    def text(self) -> str:
        """The whole chat as one text."""
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in self.messages)

    @property
    def offered(self) -> list[str]:
        """The calls that the schema of a ``oneturn.ReAct`` step allowed."""
        call = (self.schema or {}).get("properties", {}).get("tool_call", {})
        options = call.get("anyOf", [call] if call else [])
        return [name for option in options for name in option["properties"]["name"]["enum"]]


Reply = str | Mapping[str, Any] | Exception | Callable[[ScriptedRequest], Any]
"""A text; a step, as ``call`` and ``finish`` make it; an error to raise; or what a function of the request gives."""


def call(tool: str, /, thought: str = "", **args: Any) -> dict[str, Any]:
    """A step that calls ``tool`` with ``args``."""
    return {"thought": thought, "tool_call": {"name": tool, "args": args}}


def finish(thought: str = "", **outputs: Any) -> dict[str, Any]:
    """A step that ends the run with ``outputs``."""
    return call(FINISH, thought, **outputs)


def sections(**fields: Any) -> str:
    """A reply with these output fields in the format of ``dspy.ChatAdapter``, which DSPy's own modules use."""
    told = {
        name: text if isinstance(text, str) else json.dumps(text) for name, text in {**fields, "completed": ""}.items()
    }
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in told.items())


class ScriptedLM(dspy.LM):
    """A ``dspy.LM`` that gives its replies in order, and fails when it is asked for more or for fewer.

    A reply costs as many tokens as it and its prompt have words. Copies of the LM share the script.

    Args:
        *replies: what to say; see :data:`Reply`.
        piece: characters in each piece of a streamed reply.
        response_schema: whether it says that it keeps to a JSON schema. What it replies is never checked against one.
        streams: whether it can stream.
        **options: anything else ``dspy.LM`` takes. Replies aren't cached and errors not retried, unless you say so.
    """

    def __init__(
        self, *replies: Reply, piece: int = 4, response_schema: bool = True, streams: bool = True, **options: Any
    ):
        script = _StreamingScript(replies, piece) if streams else _Script(replies)
        script.supports_response_schema = response_schema
        super().__init__("scripted/lm", engine=script, **{"cache": False, "num_retries": 0, **options})

    @property
    def requests(self) -> list[ScriptedRequest]:
        """What it was asked so far, in order."""
        return list(self._engine_spec.requests)

    def __enter__(self) -> ScriptedLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check()

    def check(self) -> None:
        """Fail unless it was asked exactly as often as it has replies; leaving a ``with`` block does this.

        Raises:
            ScriptError: there were more calls, or fewer.
        """
        self._engine_spec.check()


class _Script:
    """A DSPy engine over a list of replies; it may be asked from any number of threads."""

    supports_response_schema = True
    supported_params = frozenset({"temperature", "max_tokens", "response_format"})

    def __init__(self, replies: tuple[Reply, ...] = ()):
        self.requests: list[ScriptedRequest] = []
        self._replies = replies
        self._lock = threading.Lock()

    def complete(self, request: Request) -> Response:
        """Give the next reply."""
        asked = _asked(request)
        with self._lock:
            number = len(self.requests)
            self.requests.append(asked)
        if number >= len(self._replies):
            raise ScriptError(f"{self._too_many()} The last message was: {asked.messages[-1]['content']!r}")
        reply = self._replies[number]
        text = _said(reply(asked) if callable(reply) else reply)
        words, said = len(asked.text.split()), len(text.split())
        usage = Usage(input_tokens=words, output_tokens=said, total_tokens=words + said)
        # A part can't be empty; DSPy reads a lone space as no text.
        message = Message.assistant(TextPart(text or " "))
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def check(self) -> None:
        asked, scripted = len(self.requests), len(self._replies)
        if asked > scripted:
            raise ScriptError(self._too_many())
        if asked < scripted:
            unused = "\n".join(f"  {index + 1}. {self._replies[index]!r}" for index in range(asked, scripted))
            raise ScriptError(f"{scripted - asked} of {scripted} scripted replies were not asked for:\n{unused}")

    def _too_many(self) -> str:
        return f"The LM was asked {len(self.requests)} times; its script has {len(self._replies)} replies."

    def __deepcopy__(self, memo: dict[int, Any]) -> _Script:
        """Copies of an LM go on with the same script."""
        return self

    def dump_state(self) -> dict[str, Any]:
        """Nothing: a saved program finds an LM without a script."""
        return {}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> _Script:
        """An empty script."""
        return cls()


class _StreamingScript(_Script):
    def __init__(self, replies: tuple[Reply, ...] = (), piece: int = 4):
        super().__init__(replies)
        self._piece = piece

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Give the next reply in pieces."""
        for event in response_to_events(self.complete(request)):
            if event.type != "delta" or event.delta.type != "text":
                yield event
                continue
            text = event.delta.text
            for start in range(0, len(text), self._piece):
                delta = dataclasses.replace(event.delta, text=text[start : start + self._piece])
                yield dataclasses.replace(event, delta=delta)


def _said(reply: Any) -> str:
    if isinstance(reply, BaseException):
        raise reply
    return reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)


def _asked(request: Request) -> ScriptedRequest:
    system = request.system if isinstance(request.system, str) else _text(request.system or ())
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": message.role, "content": _text(message.parts)} for message in request.messages]
    return ScriptedRequest(tuple(messages), _schema(request.config.response_format))


def _text(parts: Any) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    found = (response_format or {}).get("schema")
    return found if isinstance(found, Mapping) else None
