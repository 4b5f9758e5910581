"""The calls of an LM that DSPy sends through LiteLLM, for engines that wrap the LM's own one.

DSPy sends a call through LiteLLM if lm15 can't represent it: an option that it doesn't know, audio, a file, a provider
of LiteLLM's. For an LM with an engine object it doesn't: such an engine gets lm15 requests only. Here a request carries
the whole call to the wrapping engine, which passes it on to the LM's own route. As in ``_dspy.py``, each name states
what it relies on.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import dspy
from dspy._vendor.lm15.providers import openai_chat
from dspy.clients import execution
from dspy.clients._deprecation import adapter_message_call
from dspy.clients._litellm import get_litellm
from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.clients.call_result import CallResult, combine
from dspy.clients.engines.legacy_engine import AsyncLegacyEngine, LegacyEngine
from dspy.clients.engines.lifecycle import closing_stream
from dspy.clients.engines.litellm_engine import _ChatStream
from dspy.clients.engines.litellm_errors import litellm_errors
from dspy.clients.legacy_outputs import plain
from dspy.clients.lm import _add_dspy_identifier_to_headers
from dspy.clients.lm15_boundary import request_kwargs, response_value
from dspy.lm15 import Config, Message, RefusalPart, Request, Response, StreamEndEvent, TextPart, Usage
from dspy.utils.exceptions import LMError

_NOT_CARRIED = CLIENT_KEYS | {"model", "n", "rollout_id", "num_generations", "response_format"}
_CONNECTION_KEYS = CLIENT_KEYS | {"engine", "async_engine"}
_DELTA_KEYS = ("role", "content", "reasoning_content", "tool_calls")


_connection: contextvars.ContextVar[Mapping[str, Any] | None] = contextvars.ContextVar(
    "oneturn_connection", default=None
)


@contextmanager
def _own_connection(kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """In the block, calls use the settings of a connection that a call has of its own. Yields the other arguments."""
    token = _connection.set({key: value for key, value in kwargs.items() if key in CLIENT_KEYS})
    try:
        yield {key: value for key, value in kwargs.items() if key not in CLIENT_KEYS}
    finally:
        _connection.reset(token)


def with_call_connection(lm: dspy.LM) -> dspy.LM:
    """Return an LM with the settings of a connection that the current call has of its own, such as ``timeout``.

    Relies on: ``dspy.LM`` refuses such arguments of a call, once its engine is wrapped.
    """
    connection = _connection.get()
    return lm.copy(**connection) if connection and isinstance(lm._engine_spec, str) else lm


@dataclass(frozen=True, slots=True)
class CarriedRequest(Request):
    """A request that carries a call for LiteLLM. Its message is a placeholder; its response format is the call's.

    Attributes:
        options: the messages and options of the call, as DSPy hands them to LiteLLM, without those of the connection.
    """

    options: dict[str, Any] = field(default_factory=dict)


class RoutedLM(dspy.LM):
    """Mixed into the class of an LM whose engine is wrapped: the calls for LiteLLM reach the wrapping engine, too.

    Relies on: ``execution._engine`` gives no request for a call that goes through LiteLLM; an engine object that is a
    ``LegacyEngine`` gets such calls by ``complete_legacy``; an adapter marks its calls with ``adapter_message_call``.
    ``dspy.LM.copy`` refuses a wrapped LM that has settings of a connection, so the copy is made of the LM itself.
    """

    own_lm: dspy.LM

    @property
    def engine(self) -> Any:
        """The wrapping engine."""
        spec = vars(self)["_engine_spec"]
        return spec.engine if isinstance(spec, _Carrier) else spec

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Call the LM."""
        with _own_connection(kwargs) as kwargs:
            view: Any = self._routed(prompt, messages, kwargs)
            if view is self:
                return super().__call__(prompt, messages=messages, **kwargs)
            with adapter_message_call(view, messages):
                return super(RoutedLM, view).__call__(prompt, messages=messages, **kwargs)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """Call the LM."""
        with _own_connection(kwargs) as kwargs:
            view: Any = self._routed(prompt, messages, kwargs)
            if view is self:
                return await super().acall(prompt, messages=messages, **kwargs)
            with adapter_message_call(view, messages):
                return await super(RoutedLM, view).acall(prompt, messages=messages, **kwargs)

    def copy(self, **kwargs: Any) -> Any:
        """Return a copy with other settings and the same wrapping engine, as optimizers make it for other replies.

        A copy with another connection or engine is one of the LM itself.
        """
        if kwargs.keys() & _CONNECTION_KEYS:
            return self.own_lm.copy(**kwargs)
        return self._wrapped(self._unwrapped().copy(**kwargs))

    def dump_state(self) -> Any:
        """Return the state of the LM without the wrapping engine, which belongs to a run."""
        return self._unwrapped().dump_state()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a copy that shares the wrapping engine."""
        return self._wrapped(copy.deepcopy(self._unwrapped(), memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the LM without the wrapping engine, which belongs to a run."""
        return _itself, (self._unwrapped(),)

    def _unwrapped(self) -> dspy.LM:
        """Return the LM with these settings and its own engine."""
        bare = copy.copy(self)
        del bare.own_lm
        bare.__class__ = type(self.own_lm)
        bare._engine_spec, bare._async_engine_spec = self.own_lm._engine_spec, self.own_lm._async_engine_spec
        return bare

    def _wrapped(self, lm: dspy.LM) -> dspy.LM:
        """Give an LM the wrapping engine of this one."""
        lm.__class__ = type(self)
        engines = {key: vars(self)[key] for key in ("_engine_spec", "_async_engine_spec")}
        vars(lm).update(engines, own_lm=self.own_lm)
        return lm

    def _routed(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> Any:
        if isinstance(prompt, Request) or kwargs.get("request") is not None:
            return self
        call = execution.prepare(self, prompt, messages, kwargs)
        try:
            request = execution._engine(self.own_lm, call, False)[1]
        except LMError:  # the call itself will raise it
            return self
        if request is not None:
            return self
        view = copy.copy(self)
        engine, async_engine = vars(self)["_engine_spec"], vars(self)["_async_engine_spec"]
        view._engine_spec = _Carrier(engine)
        view._async_engine_spec = None if async_engine is None else _AsyncCarrier(async_engine)
        return view


def _itself(lm: dspy.LM) -> dspy.LM:
    return lm


@cache
def routed_class(lm_class: type[dspy.LM]) -> type[dspy.LM]:
    """Return the class of LMs of this class whose engine is wrapped."""
    return lm_class if issubclass(lm_class, RoutedLM) else type(lm_class.__name__, (RoutedLM, lm_class), {})


class _Carrier(LegacyEngine):
    def __init__(self, engine: Any):
        self.engine = engine

    def complete_legacy(self, lm: Any, request: dict[str, Any], **context: Any) -> CallResult:
        carried = _carry(lm, request)
        count = request.get("n") or 1
        return _joined(lm, [_result(lm, request, carried, self.engine.complete(carried)) for _ in range(count)])


class _AsyncCarrier(AsyncLegacyEngine):
    def __init__(self, engine: Any):
        self.engine = engine

    async def complete_legacy(self, lm: Any, request: dict[str, Any], **context: Any) -> CallResult:
        carried = _carry(lm, request)
        count = request.get("n") or 1
        return _joined(lm, [_result(lm, request, carried, await self.engine.complete(carried)) for _ in range(count)])


def _carry(lm: Any, body: dict[str, Any]) -> CarriedRequest:
    options = {key: value for key, value in body.items() if key not in _NOT_CARRIED}
    asked = {"model": lm.model, "messages": [{"role": "user", "content": "…"}]}
    if body.get("response_format") is not None:
        asked["response_format"] = body["response_format"]
    bare = execution._canonical(execution.PreparedCall(None, None, {}, asked, None, False, 1, True))
    config = Config(response_format=bare.config.response_format)
    return CarriedRequest(model=lm.model, messages=bare.messages, config=config, options=options)


def _result(lm: Any, body: dict[str, Any], carried: CarriedRequest, response: Response) -> CallResult:
    result = CallResult.native(response, model_type=lm.model_type, logprobs=bool(body.get("logprobs")))
    execution._price_result(lm, result, response, None, carried)
    return result


def _joined(lm: Any, results: list[CallResult]) -> CallResult:
    return results[0] if len(results) == 1 else combine(results, model_type=lm.model_type)


def carried_call(lm: dspy.LM, carried: CarriedRequest) -> tuple[Any, Request, str | None]:
    """Return the engine, the request and the provider for a carried call, for an LM with an engine of DSPy's.

    Relies on: ``execution.PreparedCall`` is a call as ``execution._engine`` takes it; ``request_kwargs`` writes a
    response format as LiteLLM takes it.
    """
    connection = {key: value for key, value in lm.kwargs.items() if key in CLIENT_KEYS}
    body = {"model": lm.model, **connection, **copy.deepcopy(carried.options)}
    if (asked := carried.config.response_format) is not None:
        bare = Request(model=lm.model, messages=(Message.user("…"),), config=Config(response_format=asked))
        body["response_format"] = request_kwargs(bare, "chat")["response_format"]
    call = execution.PreparedCall(None, body["messages"], {}, body, None, False, 1, True)
    backend, request, provider = execution._engine(lm, call, False)
    if request is not None:  # lm15 takes it without the response format that was refused
        return backend, request, provider
    engine = _LiteLLMChat if lm.model_type == "chat" else _LiteLLMCall
    return engine(lm, backend, body), carried, None


class _LiteLLMCall:
    """One call through LiteLLM, as an engine.

    Relies on: ``complete_legacy`` of DSPy's own LiteLLM engine notes a completed reply in ``_lm_stream_progress``, by
    which DSPy counts the usage of a reply that fails after that; ``response_value`` reads LiteLLM's reply.
    """

    def __init__(self, lm: dspy.LM, backend: Any, body: dict[str, Any]):
        self._lm = lm
        self._backend = backend
        self._body = body

    def complete(self, request: Request) -> Response:
        """Return the reply."""
        raw = self._backend.complete_legacy(self._lm, self._body).raw
        progress = dspy.settings.get("_lm_stream_progress")
        if progress is not None:
            progress.pop("completed", None)  # what ends a run by this reply counts its usage
        response: Response = response_value(raw, self._lm.model_type, request)
        return response


class _LiteLLMChat(_LiteLLMCall):
    """Relies on: ``_ChatStream`` converts LiteLLM's chunks, but refuses keys of a delta that it doesn't know."""

    def stream(self, request: Request) -> Iterator[Any]:
        """Yield the events of the reply while it is written."""
        litellm = get_litellm(feature="streaming")
        body = {**self._body, "model": self._backend.wire_model or self._lm.model}
        if self._backend.wire_model is not None:
            body |= self._backend.client_options
        body["headers"] = _add_dspy_identifier_to_headers(body.get("headers"))
        body |= {"stream": True, "stream_options": {"include_usage": True}, "num_retries": 0}
        with litellm_errors(model=self._lm.model):
            source = litellm.completion(cache={"no-cache": True, "no-store": True}, **body)
        codec, chunks = _ChatStream(request), []
        with closing_stream(source):
            for chunk in _with_errors(source, self._lm.model):
                chunks.append(chunk)
                yield from codec.feed(_known(plain(chunk)))
        response = response_value(litellm.stream_chunk_builder(chunks), "chat", request)
        yield StreamEndEvent(
            finish_reason=response.finish_reason, usage=response.usage, provider_data=response.provider_data
        )


def _with_errors(source: Any, model: str) -> Iterator[Any]:
    chunks = iter(source)
    while True:
        with litellm_errors(model=model):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def _known(chunk: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {**choice, "delta": {key: value for key, value in (choice.get("delta") or {}).items() if key in _DELTA_KEYS}}
        for choice in chunk.get("choices") or []
    ]
    return {**chunk, "choices": choices}


# LMs whose class has a forward of its own


def owns_forward(lm: dspy.BaseLM) -> bool:
    """Return whether DSPy calls an LM by the ``forward`` of its own class.

    Relies on: such a call isn't ``managed``.
    """
    return not execution.prepare(lm, "…", None, {}).managed


def with_checked_forward(lm: dspy.BaseLM, check: Callable[[Response], object]) -> dspy.BaseLM:
    """Return a copy of an LM with a ``forward`` of its own; each reply is passed to ``check``, which may raise.

    Relies on: DSPy calls the ``forward`` of the instance; ``response_value`` reads a reply in OpenAI's form.
    DSPy itself reads more: of such a reply, the first choice is checked.
    """
    forward: Any = lm.forward

    def checked(prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        raw = forward(prompt=prompt, messages=messages, **kwargs)
        try:
            request = Request(model=lm.model, messages=(Message.user("…"),))
            response = raw if isinstance(raw, Response) else response_value(raw, lm.model_type, request)
        except Exception:  # a class may return anything that DSPy can read
            response = _bare_response(lm.model, raw)
        if response is not None:
            check(response)
        return raw

    view = copy.copy(lm)
    vars(view)["forward"] = checked
    return view


def _bare_response(model: str, raw: Any) -> Response | None:
    """Return the text, the refusal and the ending of a reply of which only the first choice can be read, if it can."""
    choice: Any = next(iter(_value(raw, "choices") or ()), None)
    reason = _value(choice, "finish_reason") or _value(choice, "stop_reason")
    message = _value(choice, "message")
    refusal, text = _value(message, "refusal"), _value(message, "content") or _value(choice, "text")
    if choice is None:
        return None
    parts: list[Any] = [TextPart(text if isinstance(text, str) else "")]
    parts += [RefusalPart(refusal)] if isinstance(refusal, str) and refusal else []
    known = openai_chat._FINISH_REASON_MAP.get(str(reason), "stop")
    return Response(
        id=None,
        model=model,
        message=Message.assistant(parts),
        finish_reason=known,
        usage=Usage(),
        provider_data={"choices": [{"finish_reason": reason}]},
    )


def _value(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None)


def provider_response(result: CallResult, original: Callable[[CallResult], Any]) -> Any:
    """Return what ``forward`` of a ``dspy.LM`` returns, with the replies' own ``finish_reason`` and refusals.

    Relies on: for a reply of lm15's, ``CallResult.provider_response`` writes choices with the reason ``stop``.
    """
    reply = original(result)
    if reply is result.raw:
        return reply
    for choice, response in zip(reply["choices"], result.responses, strict=False):
        data = response.provider_data or {}
        raw = next((each.get("finish_reason") for each in data.get("choices") or [] if isinstance(each, dict)), None)
        choice["finish_reason"] = raw or response.finish_reason.replace("tool_call", "tool_calls")
        if refusal := "".join(part.text for part in response.message.parts if part.type == "refusal"):
            choice["message"]["refusal"] = refusal
    return reply


def _keep_endings() -> None:
    original = CallResult.provider_response
    CallResult.provider_response = lambda self: provider_response(self, original)


_keep_endings()

__all__ = [
    "CarriedRequest",
    "carried_call",
    "owns_forward",
    "routed_class",
    "with_call_connection",
    "with_checked_forward",
]
