"""What oneturn uses of DSPy beyond its public API: private names, and names that DSPy doesn't export.

No other file of the engine uses such names, except ``_dspy_client.py`` and ``_dspy_litellm.py``. Each name states
what it relies on. ``tests/core/test_dspy_contract.py`` checks every reliance against the installed DSPy; where a new
DSPy breaks one, the test's message says what breaks here.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, TypeAlias

import dspy
from dspy._vendor.lm15.serde import request_to_dict as _request_to_dict
from dspy._vendor.lm15.serde import response_from_dict, response_to_dict
from dspy.adapters._legacy_type_markers import _expand_legacy_custom_type_markers_in_chat_message
from dspy.adapters.chat_adapter import field_header_pattern
from dspy.adapters.types.tool import _resolve_json_schema_reference
from dspy.adapters.utils import format_field_value, parse_value, serialize_for_json
from dspy.clients import execution, model_metadata
from dspy.clients._litellm import get_litellm
from dspy.clients.backend_selection import select_backend
from dspy.clients.call_result import usage_dict
from dspy.clients.costs import estimate_cost
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.clients.lm import _is_openai_reasoning_model
from dspy.lm15 import (
    Request,
    Response,
    RouterConfig,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamErrorEvent,
    StreamStartEvent,
)
from dspy.predict.predict import serialize_object
from dspy.teleprompt import bootstrap_trace_data
from dspy.utils import parallelizer
from dspy.utils.callback import BaseCallback
from dspy.utils.usage_tracker import UsageTracker
from tqdm import tqdm

from oneturn.core._dspy_litellm import (
    CarriedRequest,
    carried_call,
    owns_forward,
    routed_class,
    with_call_connection,
    with_checked_forward,
)

StreamEvent: TypeAlias = StreamStartEvent | StreamDeltaEvent | StreamEndEvent | StreamErrorEvent
"""An event of an engine's stream; ``dspy.lm15`` exports its members only."""


# Without a network DSPy warns that it couldn't refresh its list of models, at each start; it has its own copy.
# Relies on: the warning is the only one of this logger.
logging.getLogger(model_metadata.__name__).setLevel(logging.ERROR)


# Engines: the objects behind a dspy.LM that send one request and return one response.


def uses_engine(lm: Any) -> bool:
    """Return whether ``lm`` sends its requests through an engine, so that the engine can be wrapped.

    Relies on: a ``dspy.LM`` calls its engine unless its class overrides ``forward`` or it completes plain text.
    """
    return isinstance(lm, dspy.LM) and type(lm).forward is dspy.LM.forward and lm.model_type != "text"


def with_engine(lm: dspy.LM, engine: object, async_engine: object = None) -> dspy.LM:
    """Return a copy of ``lm`` that calls ``engine``. The copy shares the history of ``lm``.

    A call that DSPy would send through LiteLLM reaches the engine as a request that carries it, for
    :func:`engine_call`.

    Relies on: ``dspy.LM`` keeps its engines in ``_engine_spec`` and ``_async_engine_spec``. The public
    ``lm.copy(engine=…)`` refuses an LM that has an ``api_key`` or another setting of DSPy's own connections.
    """
    own: dspy.LM = getattr(lm, "own_lm", lm)
    view = copy.copy(lm)
    if isinstance(own._engine_spec, str):
        lm_class: Any = type(lm)
        view.__class__ = routed_class(lm_class)
        view.own_lm = own
    view._engine_spec, view._async_engine_spec = engine, async_engine
    return view


@dataclass(frozen=True)
class EngineCall:
    """A request, ready for the LM's own engine.

    Attributes:
        engine: the engine; it has ``complete(request)``, and ``stream(request)`` if it can stream.
        request: the request as the engine takes it.
        provider: the provider by which DSPy prices the request; ``None`` for a custom engine.
    """

    engine: Any
    request: Request
    provider: str | None

    def cost(self, response: Response) -> float | None:
        """Return the cost of a response in US dollars; ``None`` if DSPy knows no price."""
        cost: float | None = estimate_cost(
            response, provider=self.provider, requested_model=self.request.model, request=self.request
        )[0]
        return cost

    def with_inclusive_usage(self, response: Response) -> Response:
        """Return a response with a usage whose input includes cached tokens, and whose output includes reasoning.

        Anthropic's excludes the former, Gemini's and xAI's the latter. DSPy adds them for an LM's own engine, but not
        for an engine that wraps it, whose provider it doesn't know.

        Relies on: ``usage_dict`` adds them by the name of the provider.
        """
        tokens = usage_dict(response, self.provider)
        names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "total_tokens": "total_tokens"}
        usage = replace(response.usage, **{field: tokens.get(name) for field, name in names.items()})
        return replace(response, usage=usage)


def engine_call(lm: dspy.LM, request: Request) -> EngineCall:
    """Prepare a call of the engine that ``lm`` itself would use, without DSPy's cache, retries, usage and history.

    Relies on: ``execution.prepare`` and ``execution._engine``, with which ``dspy.LM`` selects its engine.
    """
    lm = with_call_connection(lm)
    if isinstance(request, CarriedRequest) and isinstance(lm._engine_spec, str):
        return EngineCall(*carried_call(lm, request))
    return EngineCall(*execution._engine(lm, execution.prepare(lm, request, None, {}), False))


def request_to_dict(request: Request) -> dict[str, Any]:
    """Return a request as plain data, with the call that it carries for LiteLLM."""
    data: dict[str, Any] = _request_to_dict(request)
    return {**data, "litellm": request.options} if isinstance(request, CarriedRequest) else data


# State of the process


@contextmanager
def replaced_cache(*, memory: bool) -> Iterator[None]:
    """In the block, DSPy's cache is an empty one in memory, or none. Answers of earlier calls aren't used.

    Relies on: ``dspy.configure_cache`` replaces ``dspy.cache``, for all threads.
    """
    original = dspy.cache
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=memory)
    try:
        yield
    finally:
        dspy.cache = original


class CachedReplies(BaseCallback):
    """The LM calls of a run, so that DSPy's cache can forget their replies. It is a callback of ``dspy.context``.

    Relies on: ``execution.prepare`` and ``PreparedCall.key`` with which DSPy keys a call, and the two mappings of
    ``dspy.cache``.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[Any, dict[str, Any]]] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Keep the call."""
        self._calls.append((instance, inputs))

    def forget(self) -> None:
        """Remove the replies to the calls from DSPy's cache."""
        for lm, inputs in self._calls:
            options = {**inputs, **inputs.get("kwargs", {})}
            prompt, messages = options.pop("prompt", None), options.pop("messages", None)
            options.pop("kwargs", None)
            call = execution.prepare(lm, prompt, messages, options)
            if not call.cache:
                continue
            key = dspy.cache.cache_key(call.key(lm, False), execution.IGNORED_CACHE_KEYS)
            dspy.cache.memory_cache.pop(key, None)
            dspy.cache.disk_cache.pop(key, None)
        self._calls.clear()


@contextmanager
def without_bars() -> Iterator[None]:
    """In the block, DSPy's parallel calls draw no progress bar, which it has no setting for.

    Relies on: they draw with ``tqdm.tqdm`` of ``dspy.utils.parallelizer``.
    """
    original = parallelizer.tqdm
    parallelizer.tqdm = SimpleNamespace(tqdm=_DisabledBar)
    try:
        yield
    finally:
        parallelizer.tqdm = original


class _DisabledBar(tqdm):
    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{**options, "disable": True})


def has_price_list() -> bool:
    """Return whether DSPy has loaded its price list, which it fetches over the network when it prices a call.

    Relies on: ``model_metadata._data`` is ``None`` until then.
    """
    return model_metadata._data is not None


def price_namespaces(provider: str) -> tuple[str, ...]:
    """Return the names under which DSPy's price list has the models of a provider.

    Relies on: ``model_metadata._provider_names``.
    """
    names: tuple[str, ...] = model_metadata._provider_names(provider)
    return names


def key_variables(lm: dspy.BaseLM) -> tuple[str, ...]:
    """Return the environment variables that hold the key of an LM's provider.

    Empty if the LM has its key, owns its connection, or its provider needs none or takes it from elsewhere. For a
    provider that DSPy reaches through LiteLLM, only the variables that aren't set.

    Relies on: ``select_backend`` decides between DSPy's own client, whose ``resolve`` gives the variable that it would
    read, and LiteLLM.
    """
    if not isinstance(getattr(lm, "_engine_spec", None), str):
        return ()
    selection = select_backend(lm)
    if "api_key" in selection.clients:
        return ()
    if selection.native:
        resolution = LM15Engine(RouterConfig(), model_type=lm.model_type).resolve(lm.model)
        return (resolution.env_key,) if resolution.env_key and resolution.credential_policy == "key" else ()
    litellm = get_litellm(feature="the names of a provider's environment variables")
    return tuple(litellm.validate_environment(lm.model)["missing_keys"])


def takes_default_temperature_only(model: str) -> bool:
    """Return whether a model string, Databricks' too, names a reasoning model of OpenAI: it refuses a temperature.

    Relies on: ``_is_openai_reasoning_model``, by which ``dspy.LM`` renames ``max_tokens``.
    """
    return bool(_is_openai_reasoning_model(model.rsplit("/", 1)[-1].removeprefix("databricks-")))


# Prompts


def to_content_parts(message: dict[str, Any]) -> dict[str, Any]:
    """Return a user message with the images, audio and files in its text as content parts.

    Relies on: a ``dspy.Image``, ``dspy.Audio`` or ``dspy.File`` formats itself as text between markers, which this
    function of DSPy's own adapters converts.
    """
    converted: dict[str, Any] = _expand_legacy_custom_type_markers_in_chat_message(message)
    return converted


class RequestAdapter(dspy.JSONAdapter):
    """A ``dspy.JSONAdapter`` whose subclass decides on the options of the request, and reads the whole reply.

    Relies on: ``JSONAdapter`` calls ``_prepare_response_format`` before each call, and sends what that adds to
    ``lm_kwargs``; it drops ``tools`` only if native function calling is off. ``_call_postprocess`` gets the
    reply's text, or a dict with ``text``, ``reasoning_content`` and ``tool_calls``.
    """

    def request_options(self, lm: dspy.BaseLM) -> Mapping[str, Any]:
        """Return the options of the request to ``lm``, such as ``response_format`` or ``tools``."""
        raise NotImplementedError

    def read(self, signature: type[dspy.Signature], reply: Mapping[str, Any]) -> dict[str, Any]:
        """Return the output fields in a reply, a dict with ``text`` and what else there is."""
        raise NotImplementedError

    def _prepare_response_format(self, lm: dspy.BaseLM, lm_kwargs: dict[str, Any], signature: Any) -> None:
        lm_kwargs.update(self.request_options(lm))

    def _call_postprocess(
        self, processed_signature: Any, original_signature: Any, outputs: list[Any], lm: Any, lm_kwargs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        replies = [output if isinstance(output, dict) else {"text": output} for output in outputs]
        return [self.read(original_signature, reply) for reply in replies]


def inline_references(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema with its ``$ref``s replaced by what they refer to, as ``dspy.Tool`` does with an argument's.

    Relies on: ``dspy.Tool`` shows an LM the arguments one by one, where ``$defs`` can't be looked up.
    """
    inlined: dict[str, Any] = _resolve_json_schema_reference(schema)
    return inlined


# Predictions and programs


def with_field(prediction: dspy.Prediction, name: str, value: Any) -> dspy.Prediction:
    """Return a copy of a prediction with one more field; its completions and its usage are kept.

    Relies on: a prediction keeps its fields in ``_store``, and lists none whose name starts with ``dspy_``.
    """
    copied = copy.copy(prediction)
    copied._store = {**prediction._store, name: value}
    return copied


def has_inputs(example: dspy.Example) -> bool:
    """Return whether an example marks its inputs.

    Relies on: ``Example.with_inputs`` sets ``_input_keys``; before, it is ``None``.
    """
    return example._input_keys is not None


def mark_uncompiled(program: dspy.Module) -> None:
    """Make an optimizer accept a program that another one has compiled.

    Relies on: optimizers skip, or refuse, a module whose ``_compiled`` is true.
    """
    program._compiled = False


def restore_forward(program: dspy.Module) -> dspy.Module:
    """Remove the ``forward`` that DSPy sets on a program while it records traces, and the one it leaves behind.

    Relies on: ``bootstrap_trace_data`` sets a function of its own module as the ``forward`` of the instance, and then
    sets the method itself, bound to the original program.
    """
    patched = getattr(vars(program).get("forward"), "__func__", None)
    if patched is type(program).forward or getattr(patched, "__module__", None) == bootstrap_trace_data.__module__:
        del program.forward
    return program


__all__ = [
    "CachedReplies",
    "EngineCall",
    "RequestAdapter",
    "StreamEvent",
    "UsageTracker",
    "engine_call",
    "estimate_cost",
    "field_header_pattern",
    "format_field_value",
    "has_inputs",
    "has_price_list",
    "inline_references",
    "mark_uncompiled",
    "owns_forward",
    "parse_value",
    "price_namespaces",
    "replaced_cache",
    "request_to_dict",
    "response_from_dict",
    "response_to_dict",
    "restore_forward",
    "serialize_for_json",
    "serialize_object",
    "to_content_parts",
    "usage_dict",
    "uses_engine",
    "with_checked_forward",
    "with_engine",
    "with_field",
]
