"""A tool's failure as the LM, and with it the client, may read it: one short line, no path, no secret."""

from __future__ import annotations

import re

from oneturn.core.secrets import redact
from oneturn.errors import ToolError

_CHARS = 200
# Errors whose text is usually about the arguments. Those of files, networks and databases tell of the machine.
_ABOUT_THE_CALL = (ToolError, ValueError, LookupError, TypeError)
_PATH = re.compile(
    r"""\bfile:/+[^\s'"]+
    |(?<![^\s'"`(\[{=,;>])(?:/[\w.@+-]+(?:\ [\w.@+-]+(?=/))?)+/?
    |(?<![\w/])~/[^\s'"]+
    |\b[A-Za-z]:[\\/](?:[^\s'"]|\ (?=[^\s'"]*[\\/]))+
    |(?<!\w)\\\\[\w.-]+\\[^\s'"]+
    |(?<![\w/:.@-])[\w.-]+(?:/[\w.-]+){2,}\.[A-Za-z]\w{0,4}\b""",
    re.VERBOSE,
)


def to_lm_error(error: Exception) -> str:
    """What went wrong, in one line of at most 200 characters.

    A ``ToolError`` is written for the LM, and errors about values are mostly about the call's arguments: their text is
    told, less paths and what looks like a secret. Of any other error only its type is; its text is in the trace.
    """
    if not isinstance(error, _ABOUT_THE_CALL):
        return f"the tool failed ({type(error).__name__})"
    return redacted_line(str(error)) or type(error).__name__


def redacted_line(text: str) -> str:
    """A message in one line of at most 200 characters, less paths and what looks like a secret."""
    text = " ".join(_PATH.sub("…", redact(text)).split())
    return text if len(text) <= _CHARS else text[: _CHARS - 1] + "…"
