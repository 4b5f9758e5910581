"""What an LM can do, which way to ask it for tool calls follows from that, and what an endpoint has refused.

DSPy searches its whole list of models for each capability, so they are cached by LM.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Mapping
from typing import Any, Literal, get_args

import dspy
from dspy.lm15 import CapabilityError, ContextLengthError, InvalidRequestError, LM15Error, ServerError
from dspy.utils.exceptions import (
    LMInvalidRequestError,
    LMServerError,
    LMUnsupportedFeatureError,
)

from oneturn.lm.endings import error_cause, is_too_long

ToolCalling = Literal["native", "schema", "text"]
"""How an LM is asked for tool calls: by function calling, by a JSON schema of its reply, or by the prompt alone."""

TOOL_CALLING: tuple[ToolCalling, ...] = get_args(ToolCalling)
"""The ways from the most to the least that the LM has to support; a refused one falls back to the next."""

_NAMES = ("supports_function_calling", "supports_reasoning", "supports_response_schema", "supported_params")
"""What an LM says about itself, and an engine about its LM: DSPy uses the same attributes for both."""

_capabilities: weakref.WeakKeyDictionary[dspy.BaseLM, tuple[str, dict[str, Any]]] = weakref.WeakKeyDictionary()

# Databricks documents function calling for these families; other endpoints of a workspace may serve anything.
_DATABRICKS_NATIVE = re.compile(r"claude|gpt|llama|gemini|qwen3-next|deepseek-v4-pro", re.IGNORECASE)
# Dialects without anyOf, $ref and the like (Databricks: "Structured outputs"; Gemini: "Function calling").
_NARROW = re.compile(r"^(databricks|gemini|vertex_ai)/|gemini", re.IGNORECASE)
# Their APIs require the reasoning of an unfinished run in the following requests.
_REASONING_REPLAYED = ("deepseek/", "moonshot/", "moonshotai/", "zai/")

_ABOUT_FORMAT = re.compile(
    r"response_format|json.?schema|json_object|structured.?output|\bschema\b|\bgrammar|anyOf|oneOf|allOf|\$ref|prefixItems"
    r"|additionalProperties|\btools?\b|tool_choice|tool.call|function.?call|\bfunctions?\b",
    re.IGNORECASE,
)
_UNSUPPORTED = re.compile(r"not.{0,10}support|unsupported|not implemented|requires? --", re.IGNORECASE)


def capabilities_of(lm: dspy.BaseLM) -> Mapping[str, Any]:
    """Return the LM's capabilities by the name of DSPy's attribute."""
    model, capabilities = _capabilities.get(lm, (None, {}))
    if model != lm.model:
        engine = getattr(lm, "engine", None)
        of_engine = {name: bool(getattr(engine, name, False)) for name in ("local_grammar", "free_text")}
        capabilities = {**{name: getattr(lm, name) for name in _NAMES}, **of_engine}
        _capabilities[lm] = (lm.model, capabilities)
    return capabilities


def has_local_grammar(lm: dspy.BaseLM) -> bool:
    """Return whether a grammar in this process holds the LM to any schema, so that a new schema costs nothing.

    An engine says so with ``local_grammar = True``.
    """
    return bool(capabilities_of(lm)["local_grammar"])


def supports_free_text(lm: dspy.BaseLM) -> bool:
    """Return whether a reply may begin with free text, of a limited length, before the JSON of its schema.

    An engine says so with ``free_text = True``; the schema holds the limit: see :mod:`oneturn.lm.free_text`.
    """
    return bool(capabilities_of(lm)["free_text"])


def supports_schema(lm: dspy.BaseLM) -> bool:
    """Return whether the LM takes a JSON schema of its reply."""
    return supports_json_mode(lm) and bool(capabilities_of(lm)["supports_response_schema"])


def supports_json_mode(lm: dspy.BaseLM) -> bool:
    """Return whether the LM takes a response format at all."""
    return bool("response_format" in capabilities_of(lm)["supported_params"])


def best_tool_calling(lm: dspy.BaseLM) -> ToolCalling:
    """Return how to ask ``lm`` for tool calls, by what it can do."""
    if has_local_grammar(lm):
        return "schema"
    capabilities = capabilities_of(lm)
    native = bool(capabilities["supports_function_calling"]) and "tools" in capabilities["supported_params"]
    if native and (not lm.model.startswith("databricks/") or _DATABRICKS_NATIVE.search(lm.model)):
        return "native"
    return "schema" if supports_schema(lm) else "text"


def takes_narrow_schemas(lm: dspy.BaseLM) -> bool:
    """Return whether the LM's provider documents a narrow dialect of JSON Schema, without ``anyOf`` and ``$ref``."""
    return bool(_NARROW.search(lm.model))


def replays_reasoning(lm: dspy.BaseLM) -> bool:
    """Return whether the LM's API requires the reasoning of a run in the run's later requests."""
    return bool(lm.model.startswith(_REASONING_REPLAYED))


_refused: set[tuple[str, str, str]] = set()


def is_format_refusal(error: Exception) -> bool:
    """Return whether a request was refused for its schema or its tools, so that it can be sent without them."""
    if error_cause(error) is not None:
        return False
    if isinstance(error, LMUnsupportedFeatureError):  # or for an option or a file that can't be sent
        return bool(_ABOUT_FORMAT.search(str(error)))
    if isinstance(error, LMServerError):  # llama.cpp and others say so with status 500 or 501
        return bool(_ABOUT_FORMAT.search(str(error)) and _UNSUPPORTED.search(str(error)))
    return isinstance(error, LMInvalidRequestError) and bool(_ABOUT_FORMAT.search(str(error)))


def is_engine_format_refusal(error: LM15Error) -> bool:
    """Return whether an engine's error refuses a request for its schema; see :func:`is_format_refusal`."""
    if isinstance(error, ContextLengthError) or is_too_long(str(error)):
        return False
    if isinstance(error, ServerError):
        return bool(_ABOUT_FORMAT.search(str(error)) and _UNSUPPORTED.search(str(error)))
    return isinstance(error, InvalidRequestError | CapabilityError) and bool(_ABOUT_FORMAT.search(str(error)))


def remember_refusal(lm: dspy.BaseLM, request_format: Mapping[str, Any]) -> None:
    """Remember for this process that the LM's endpoint refuses these tools or this schema; others aren't affected."""
    _refused.add(_refusal_key(lm, request_format))


def is_refused(lm: dspy.BaseLM, request_format: Mapping[str, Any]) -> bool:
    """Return whether the LM's endpoint has refused these tools or this schema before."""
    return bool(_refused) and _refusal_key(lm, request_format) in _refused


def _refusal_key(lm: dspy.BaseLM, request_format: Mapping[str, Any]) -> tuple[str, str, str]:
    base = lm.kwargs.get("api_base") or lm.kwargs.get("base_url") or ""
    return lm.model, str(base), json.dumps(request_format, sort_keys=True, default=str)
