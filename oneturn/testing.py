"""Test an agent without a model: ``ScriptedLM`` replies from a script.

    from oneturn.testing import ScriptedLM, call, finish

    def test_the_agent_looks_it_up():
        with ScriptedLM(call("search", query="fees"), finish(answer="4 euros")) as lm, dspy.context(lm=lm):
            assert program(question="What are the fees?").answer == "4 euros"
        assert "4 euros" in lm.requests[-1].text

A call beyond the script fails, and so do unused replies. ``ScriptedLM`` is a ``dspy.LM`` with a custom engine, so
caching, streaming, usage, callbacks and error types are DSPy's.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage, response_to_events

from oneturn.core._dspy import StreamEvent
from oneturn.tools.registry import FINISH


class ScriptError(BaseException):
    """The number of LM calls differs from the number of scripted replies.

    A ``BaseException``, like pytest's own failures, so that code that handles ``Exception`` doesn't hide it.
    """


@dataclasses.dataclass(frozen=True)
class ScriptedRequest:
    """A request that the LM received.

    Attributes:
        messages: the chat messages as ``{"role": …, "content": …}`` with text content, system message first.
        schema: the JSON schema required of the reply; ``None`` if the request has none.
        settings: the ``temperature``, ``top_p`` and ``max_tokens`` of the request, without those not set.
    """

    messages: tuple[Mapping[str, str], ...]
    schema: Mapping[str, Any] | None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def text(self) -> str:
        """All messages as one text."""
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in self.messages)

    @property
    def offered(self) -> list[str]:
        """The tool names allowed by the schema of a ``oneturn.ReAct`` step."""
        call = (self.schema or {}).get("properties", {}).get("tool_call", {})
        options = call.get("anyOf", [call] if call else [])
        return [name for option in options for name in option["properties"]["name"]["enum"]]


Reply = str | Mapping[str, Any] | Exception | Callable[[ScriptedRequest], Any]
"""A text; a step from ``call`` or ``finish``; an exception to raise; or a function of the request returning one."""


def call(tool: str, /, thought: str = "", **args: Any) -> dict[str, Any]:
    """Return a step that calls ``tool`` with ``args``."""
    return {"thought": thought, "tool_call": {"name": tool, "args": args}}


def finish(thought: str = "", **outputs: Any) -> dict[str, Any]:
    """Return a step that ends the run with ``outputs``."""
    return call(FINISH, thought, **outputs)


def sections(**fields: Any) -> str:
    """Return a reply with these output fields in the format of ``dspy.ChatAdapter``, the default of DSPy's modules."""
    texts = {
        name: text if isinstance(text, str) else json.dumps(text) for name, text in {**fields, "completed": ""}.items()
    }
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in texts.items())


class ScriptedLM(dspy.LM):
    """A ``dspy.LM`` that returns scripted replies in order, and fails on too many or too few calls.

    Token usage is the number of words in prompt and reply. Copies of the LM share the script.

    Args:
        *replies: the replies; see :data:`Reply`.
        piece: characters per chunk of a streamed reply.
        response_schema: whether the LM is held to JSON schemas by a grammar, as the embedded LM is. Replies are never
            validated against one.
        streams: whether the LM supports streaming.
        free_text: whether a reply may begin with free text before the JSON, as the embedded LM's may: the LM is then
            asked for thoughts of that kind, with a line after the question.
        **options: further options of ``dspy.LM``. By default, replies aren't cached and errors aren't retried.
    """

    def __init__(
        self,
        *replies: Reply,
        piece: int = 4,
        response_schema: bool = True,
        streams: bool = True,
        free_text: bool = False,
        **options: Any,
    ):
        script = _StreamingScript(replies, piece) if streams else _Script(replies)
        script.supports_response_schema = script.local_grammar = response_schema
        script.free_text = free_text
        super().__init__("scripted/lm", engine=script, **{"cache": False, "num_retries": 0, **options})

    @property
    def requests(self) -> list[ScriptedRequest]:
        """The requests received so far, in order."""
        return list(self.engine.requests)

    def __enter__(self) -> ScriptedLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check()

    def check(self) -> None:
        """Check that the number of calls equals the number of replies; called at the end of a ``with`` block.

        Raises:
            ScriptError: there were more calls than replies, or fewer.
        """
        self.engine.check()


class _Script:
    """A DSPy engine that returns a list of replies in order. Thread-safe."""

    local_grammar = True
    free_text = False
    supports_response_schema = True
    supported_params = frozenset({"temperature", "top_p", "max_tokens", "response_format"})

    def __init__(self, replies: tuple[Reply, ...] = ()):
        self.requests: list[ScriptedRequest] = []
        self._replies = replies
        self._lock = threading.Lock()

    def complete(self, request: Request) -> Response:
        """Return the next reply."""
        scripted_request = _to_scripted_request(request)
        with self._lock:
            number = len(self.requests)
            self.requests.append(scripted_request)
        if number >= len(self._replies):
            raise ScriptError(
                f"{self._describe_excess()} The last message was: {scripted_request.messages[-1]['content']!r}"
            )
        reply = self._replies[number]
        text = _to_text(reply(scripted_request) if callable(reply) else reply)
        input_tokens, output_tokens = len(scripted_request.text.split()), len(text.split())
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens)
        # A part can't be empty; DSPy treats a single space as no text.
        message = Message.assistant(TextPart(text or " "))
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def check(self) -> None:
        calls, replies = len(self.requests), len(self._replies)
        if calls > replies:
            raise ScriptError(self._describe_excess())
        if calls < replies:
            unused = "\n".join(f"  {index + 1}. {self._replies[index]!r}" for index in range(calls, replies))
            raise ScriptError(f"{replies - calls} of {replies} scripted replies were not used:\n{unused}")

    def _describe_excess(self) -> str:
        return f"The LM was called {len(self.requests)} times; its script has {len(self._replies)} replies."

    def __deepcopy__(self, memo: dict[int, Any]) -> _Script:
        """Copies of an LM share the script."""
        return self

    def dump_state(self) -> dict[str, Any]:
        """Return nothing: a saved program doesn't include the script."""
        return {}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> _Script:
        """Return an empty script."""
        return cls()


class _StreamingScript(_Script):
    def __init__(self, replies: tuple[Reply, ...] = (), piece: int = 4):
        super().__init__(replies)
        self._piece = piece

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Yield the next reply in chunks."""
        for event in response_to_events(self.complete(request)):
            if event.type != "delta" or event.delta.type != "text":
                yield event
                continue
            text = event.delta.text
            for start in range(0, len(text), self._piece):
                delta = dataclasses.replace(event.delta, text=text[start : start + self._piece])
                yield dataclasses.replace(event, delta=delta)


def _to_text(reply: Any) -> str:
    if isinstance(reply, BaseException):
        raise reply
    return reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)


def _to_scripted_request(request: Request) -> ScriptedRequest:
    system = request.system if isinstance(request.system, str) else _text(request.system or ())
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": message.role, "content": _text(message.parts)} for message in request.messages]
    settings = {name: getattr(request.config, name) for name in ("temperature", "top_p", "max_tokens")}
    given = {name: value for name, value in settings.items() if value is not None}
    return ScriptedRequest(tuple(messages), _schema(request.config.response_format), given)


def _text(parts: Any) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    schema = (response_format or {}).get("schema")
    return schema if isinstance(schema, Mapping) else None
