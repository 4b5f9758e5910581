"""Refuse what looks like a secret before it is written where others read it. No message repeats it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from oneturn.errors import ProgramError

SECRET_KEY = re.compile(
    r"""(^|[_-])(
        ((shared[_-]?)?access|account|api|encryption|private|secret|signing|storage)[_-]?key
        |(access|auth|bearer|id|refresh)?token
        |password|passwd|(client)?secret|credentials?|connection[_-]?string
        )$""",
    re.IGNORECASE | re.VERBOSE,
)

# Prompts and demos are prose about anything: what is matched here is no word of a language. The forms are the issuers'.
IN_PROSE = re.compile(
    r"""(?:(?<![\w-])|(?<=\\[nrt]))(?:  # after a line's end that JSON in a text writes, too
        sk[-_](?:[\w-]*[-_])?(?=[A-Za-z]*\d)[A-Za-z0-9]{16,}
        |(?:(?:dapi|dkea|dose)[0-9a-f]{32}
        |gh[opsur]_[A-Za-z0-9]{20,}
        |github_pat_\w{20,}
        |glpat-[\w-]{20,}
        |(?:hf_|gsk_|npm_|xai-)(?=[A-Za-z]*\d)[A-Za-z0-9]{20,}
        |ya29\.(?=[A-Za-z_-]*\d)[\w-]{20,}
        |x(?:ox[abeprs]|app)-(?=[A-Za-z-]*\d)[\w-]{12,}
        |(?:AKIA|ASIA)[0-9A-Z]{16}
        |AIza[\w-]{35}
        |eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*
        )(?!\w)
    )
    |-----BEGIN\ (?:[A-Z]+\ )*PRIVATE\ KEY(?:\ BLOCK)?-----
    |hooks\.slack\.com/services/\w+/\w+/\w{16,}
    |[?&;]sig=(?=[A-Za-z%+/]*\d)[\w%+/]{20,}
    |(?i:(?:access|account|api|private|secret)[_-]?key|client[_-]?secret|password|token)
        \\?["']?\s*[:=]\s*\\?["']?(?=[A-Za-z+/]*\d)(?=[\d+/]*[A-Za-z])[A-Za-z0-9+/]{20,}
    |(?i:authorization["']?\s*[:=]\s*["']?basic\s+)[A-Za-z0-9+/]{8,}
    |\w{1,20}://[^/\s:@]*:[^/\s@]+@[\w.-]
    |Bearer\s+(?=[\w.~+/-]*\d)(?=[\w.~+/-]*[A-Za-z])[\w.~+/-]{20,}""",
    re.VERBOSE,
)
# What is left out of an error's text, which nobody has to write again: more than is refused in a program.
_BLOCK = re.compile(r"-----BEGIN\ [A-Z ]*PRIVATE\ KEY(?:\ BLOCK)?-----(?:.*?-----END[A-Z ]*-----|.*)", re.DOTALL)
_ASSIGNED = re.compile(
    r"""(?P<name>
        (?<![\w-])(?:[\w-]*(?:
            password|passwd|pwd|passphrase|secret|token|credentials?|connection[_-]?string
            |(?:access|account|api|encryption|private|secret|shared|signing|storage|subscription)[_-]?key
            )|(?:[\w-]+[_-])?(?:pass|sig|signature|authorization))
        [\\"'\]]*\s*(?:=>|:=|==?|:)\s*
    )
    (?!(?:none|null|true|false|field|must|not|required|missing|invalid|too)(?![^\s,;.:)}\]]))
    (?P<value>
        "(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'  # in quotes, with blanks
        |\\+(?P<quote>["']).*?\\+(?P=quote)  # in those of JSON in a text
        |\\*["'].*  # in quotes that were cut off
        |(?:(?:basic|bearer|negotiate|token)\s+)?\S+
    )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_EAGER = re.compile(
    r"""(?<=://)[^/\s?\#]+(?=@)
        |(?<![\w/.+@-])(?!mailto:)[\w.+-]{1,100}:[^\s@/]{1,100}(?=@[\w.-])
        |(?<=\bBearer\ )(?!(?:auth\w*|tokens?|credentials?|header|scheme|is|was)(?![\w.~+/=-]))\S+
        |(?<=\bBasic\ )(?=\S{0,200}[\d=])[A-Za-z0-9+/]{8,}=*
        |\b(?:sk-|sk_|dapi|dkea|dose|gh[opsu]_|github_pat_|hf_|xox[abp]-|AKIA|AIza|eyJ)(?=\S{0,200}\d)[^\s'",;]{12,}
        |(?<=\bhooks\.slack\.com/services/)\S+""",
    re.VERBOSE | re.IGNORECASE,
)
_LIKE_A_KEY = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])\S{12,}")
_SHORTEST = 12


def refuse_secrets_in(found: Any, source: str) -> None:
    """Raise ``ProgramError`` if any text in a compiled program looks like a secret, or is one of this environment's.

    The environment's are the values of variables whose names say so, such as ``OPENAI_API_KEY``.

    Args:
        found: mappings, lists and texts.
        source: what the message calls it.
    """
    own = _of_the_environment()
    for path, called in _names(found):
        if IN_PROSE.search(called) or any(secret in called for secret in own.values()):
            _refuse(source, path or "it", "has a name in it that looks like a secret")
    for path, key, value in leaves(found):
        if not isinstance(value, str):
            continue
        if name := next((name for name, secret in own.items() if secret in value), None):
            _refuse(source, path, f"holds the value of the environment variable {name}")
        if IN_PROSE.search(value) or (SECRET_KEY.search(key) and _LIKE_A_KEY.fullmatch(value)):
            _refuse(source, path, "looks like a secret")


def looks_secret(text: str) -> bool:
    """Whether a text holds what looks like a secret, or one of this environment's."""
    return bool(IN_PROSE.search(text)) or any(secret in text for secret in _of_the_environment().values())


def redact(text: str) -> str:
    """The text with "…" for what looks like a secret, and for each of this environment's.

    It takes away more than :func:`looks_secret` finds: whatever follows ``password:`` or ``token=``, too.
    """
    for secret in sorted(_of_the_environment().values(), key=len, reverse=True):
        text = text.replace(secret, "…")
    text = _ASSIGNED.sub(r"\g<name>…", _BLOCK.sub("…", text))
    return IN_PROSE.sub("…", _EAGER.sub("…", text))


def leaves(value: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each plain value in mappings and lists, with its dotted path and the nearest key above it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else str(name), str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{index}", key)
    else:
        yield path, key, value


def _names(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each name in mappings, with the dotted path of its mapping."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    entries: Iterable[tuple[Any, Any]] = (
        value.items() if isinstance(value, Mapping) else enumerate(value if listed else ())
    )
    for name, inner in entries:
        if isinstance(name, str):
            yield path, name
        yield from _names(inner, f"{path}.{name}" if path else str(name))


def _of_the_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if SECRET_KEY.search(name) and len(value) >= _SHORTEST and _LIKE_A_KEY.fullmatch(value)
    }


def _refuse(source: str, path: str, why: str) -> None:
    raise ProgramError(
        f"{source}: {path} {why}, and a compiled program is read by everybody who has it. Take it out of the examples "
        "or of what the tools give, and compile again."
    )
