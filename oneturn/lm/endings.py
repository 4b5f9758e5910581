"""The names and words by which providers say that a reply, or a request, ended early.

Providers have many names for three things: the reply reached its token limit, a filter stopped it, it is broken. Some
use them as finish reasons, others as the code of an error with status 400. A prompt that is too long is often refused
in words only. Importing ``oneturn.lm`` makes every ``dspy.LM`` of the process read them.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMError,
    LMInvalidRequestError,
    LMServerError,
)

from oneturn.core._dspy_client import use_error_bodies, use_finish_reasons

Ending = Literal["max_output_tokens", "content_filter", "refusal"]

ErrorCause = Literal["failed_reply", "content_filter", "context_length"]
"""Why a call failed, if neither the LM's settings nor the format of the request are to blame."""

# Names: finish reasons and error codes.
_CUT = re.compile(r"length|max.?(?:output.?|new.?)?tokens|token.?limit", re.IGNORECASE)
_FILTERED = re.compile(
    r"content.?filter|content.?policy|safety|recitation|blocklist|prohibited.?content|\bspii\b|^language$|sensitive"
    r"|guardrail|^invalid_prompt$|^promptfeedback$",
    re.IGNORECASE,
)
# Groq's codes and Gemini's names of a reply that isn't a valid function call, or JSON.
_FAILED = re.compile(
    r"tool_use_failed|json_validate_failed|malformed.?(?:(?:function|tool).?call|response)|unexpected.?tool.?call"
    r"|too.?many.?tool.?calls",
    re.IGNORECASE,
)

# Words of an error's message.
_FILTERED_TEXT = re.compile(
    r"content.?(?:filter|management policy|policy.?violation)|ResponsibleAIPolicy"
    r"|guardrail[_ ](?:triggered|intervened)|(?:prompt|candidate) blocked:|violating our usage polic",
    re.IGNORECASE,
)
_UNNAMED_CALL = re.compile(r"tool call (?:at part \d+ arrived without a|with no) name")
_TOO_LONG = re.compile(
    r"context.?(?:length|window|size)|reduce the length of|max_new_tokens`? must be"
    r"|\b(?:prompt|input|request)\b.{0,60}(?<!string )\btoo (?:long|many tokens)|maximum.{0,40}(?:input|prompt) tokens"
    r"|(?:input|prompt)\b.{0,60}\bexceeds?\b.{0,60}\b(?:tokens|length)|maximum.*tokens",
    re.IGNORECASE,
)
_OUTPUT_LIMIT = re.compile(r"max_(?:completion_|output_|new_)?tokens|(?:output|completion) tokens", re.IGNORECASE)
_OF_PROMPT = re.compile(r"context|input|prompt|messages", re.IGNORECASE)
_IN_STREAM = "inband_finish_reason"  # lm15's code of Gemini's endings in a stream, whose names are lost
_ABOUT_CALL = re.compile(r"(?:tool|function).?call", re.IGNORECASE)
_ABOUT_SIGNATURE = re.compile(r"signature", re.IGNORECASE)


def finish_reason(name: str) -> Literal["length", "content_filter", "error"] | None:
    """Return what a provider's own finish reason means; ``None`` for any that isn't an early ending."""
    if _FAILED.search(name):
        return None  # such a reply is empty or unreadable, and the LM is asked again
    if _FILTERED.search(name):
        return "content_filter"
    if _CUT.search(name):
        return "length"
    return "error" if name.lower() == "error" else None


def error_cause(error: BaseException) -> ErrorCause | None:
    """Return why an LM's call failed: a broken reply, a filter, a prompt that is too long; ``None`` for another cause.

    ``lm15`` raises Gemini's endings as errors, and refuses a function call without a name. Groq answers 400 if the LM's
    call or JSON is invalid. Azure, OpenAI and Databricks answer 400 to a prompt that a filter refuses.
    """
    if isinstance(error, ContextWindowExceededError):
        return "context_length"
    if not isinstance(error, LMError):
        return None
    code, text = error.provider_code or "", str(error)
    if code == _IN_STREAM and not _ABOUT_SIGNATURE.search(text):
        return "failed_reply" if _FAILED.search(text) or _ABOUT_CALL.search(text) else "content_filter"
    if _FAILED.search(code) or _UNNAMED_CALL.search(text):
        return "failed_reply"
    if not isinstance(error, LMInvalidRequestError | LMServerError):
        return None
    if _FILTERED.search(code) or _FILTERED_TEXT.search(text):
        return "content_filter"
    return "context_length" if is_too_long(text) else None


def is_too_long(message: str) -> bool:
    """Return whether an error message says that a prompt is too long for the LM, not that more output was asked for."""
    if _OUTPUT_LIMIT.search(message) and not _OF_PROMPT.search(message):
        return False
    return bool(_TOO_LONG.search(message))


def openai_error(status: int, body: str) -> str:
    """Return the body of an error in OpenAI's form, which is the only one that ``lm15`` reads.

    Databricks, vLLM and FastAPI servers have ``message`` or ``detail`` without an ``error`` around it. A prompt that is
    too long gets OpenAI's code for that, so that any program can shorten it.
    """
    try:
        data = json.loads(body)
    except ValueError:
        return body
    if not isinstance(data, dict):
        return body
    error = data.get("error", data)
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return body
    message = error.get("message") or error.get("detail") or error.get("finishReason")
    if not isinstance(message, str):
        return body
    code = error.get("error_code") or error.get("code")
    if status in (400, 413, 422) and is_too_long(message):
        code = "context_length_exceeded"
    return json.dumps({**data, "error": {**error, "message": message, "code": code}})


use_finish_reasons(finish_reason)
use_error_bodies(openai_error)
