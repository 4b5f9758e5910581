"""Convert a tool's exception to the error sent to the LM and the client: one short line, no paths, no secrets."""

from __future__ import annotations

import re

import pydantic

from oneturn.core.secrets import redact
from oneturn.core.validation import problems_of
from oneturn.errors import ToolError

_MAX_CHARS = 200
# Errors whose text is usually about the arguments. Those of files, networks and databases reveal server details.
_ARGUMENT_ERRORS = (ToolError, ValueError, LookupError, TypeError)
_PATH = re.compile(
    r"""\bfile:/+[^\s'"]+
    |(?<![^\s'"`(\[{=,;>])(?:/[\w.@+-]+(?:\ [\w.@+-]+(?=(?:/[\w.@+-]+)*/[\w@+-]+\.[A-Za-z]))?)+/?  # with a space
    |(?<![\w/])~/[^\s'"]+
    |\b[A-Za-z]:[\\/](?:[^\s'"]|\ (?=[^\s'"]*[\\/]))+
    |(?<!\w)\\\\[\w.-]+\\[^\s'"]+
    |(?<![\w/:.@-])[\w.-]+(?:/[\w.-]+){2,}\.[A-Za-z]\w{0,4}\b""",
    re.VERBOSE,
)


def to_lm_error(error: Exception) -> str:
    """Describe the error in one line of at most 200 characters.

    For a ``ToolError``, and for errors that are usually about the call's arguments, it is the message without paths and
    secrets. For any other error it is only the type; the trace has the message.
    """
    if not isinstance(error, _ARGUMENT_ERRORS):
        return f"the tool failed ({type(error).__name__})"
    if isinstance(error, pydantic.ValidationError):  # its text has pydantic's types and an address
        problem = problems_of(error)[0]
        return redacted_line(": ".join([*filter(None, [".".join(map(str, problem["loc"]))]), problem["msg"]]))
    return redacted_line(str(error)) or type(error).__name__


def redacted_line(text: str) -> str:
    """Return the text as one line of at most 200 characters, without paths and secrets."""
    text = " ".join(_PATH.sub("…", redact(text)).split())
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
