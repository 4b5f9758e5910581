"""Detect and redact secrets before they are written where others can read them. Error messages never repeat them."""

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

# Prompts and demos are free prose, so these patterns match no natural words. The formats are those of the issuers.
IN_PROSE = re.compile(
    r"""(?:(?<![\w-])|(?<=\\[nrt]))(?:  # also after an escaped newline of JSON in a text
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
# Redaction of error texts is broader than detection in programs: a false positive costs nothing there.
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
        "(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'  # in quotes, may contain spaces
        |\\+(?P<quote>["']).*?\\+(?P=quote)  # in escaped quotes of JSON in a text
        |\\*["'].*  # in quotes, truncated
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


def refuse_secrets_in(state: Any, source: str) -> None:
    """Check that a compiled program contains no text that looks like a secret or is one from the environment.

    Secrets of the environment are the values of variables with names such as ``OPENAI_API_KEY``.

    Args:
        state: mappings, lists and texts.
        source: the name of the program in the message.

    Raises:
        ProgramError: a key or value looks like a secret.
    """
    environment = _environment_secrets()
    for path, name in _names(state):
        if IN_PROSE.search(name) or any(secret in name for secret in environment.values()):
            _refuse(source, path or "the program", "has a key that looks like a secret")
    for path, key, value in leaves(state):
        if not isinstance(value, str):
            continue
        if variable := next((name for name, secret in environment.items() if secret in value), None):
            _refuse(source, path, f"contains the value of the environment variable {variable}")
        if IN_PROSE.search(value) or (SECRET_KEY.search(key) and _LIKE_A_KEY.fullmatch(value)):
            _refuse(source, path, "looks like a secret")


def looks_secret(text: str) -> bool:
    """Whether a text contains something that looks like a secret, or a secret of the environment."""
    return bool(IN_PROSE.search(text)) or any(secret in text for secret in _environment_secrets().values())


def redact(text: str) -> str:
    """Return the text with "…" in place of secrets, those of the environment included.

    It removes more than :func:`looks_secret` detects, such as any value after ``password:`` or ``token=``.
    """
    for secret in sorted(_environment_secrets().values(), key=len, reverse=True):
        text = text.replace(secret, "…")
    text = _ASSIGNED.sub(r"\g<name>…", _BLOCK.sub("…", text))
    return IN_PROSE.sub("…", _EAGER.sub("…", text))


def leaves(value: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield each scalar in mappings and lists, with its dotted path and the nearest mapping key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else str(name), str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{index}", key)
    else:
        yield path, key, value


def _names(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of mappings, with the dotted path of its mapping."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    entries: Iterable[tuple[Any, Any]] = (
        value.items() if isinstance(value, Mapping) else enumerate(value if listed else ())
    )
    for name, inner in entries:
        if isinstance(name, str):
            yield path, name
        yield from _names(inner, f"{path}.{name}" if path else str(name))


def _environment_secrets() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if SECRET_KEY.search(name) and len(value) >= _SHORTEST and _LIKE_A_KEY.fullmatch(value)
    }


def _refuse(source: str, path: str, reason: str) -> None:
    raise ProgramError(
        f"{source}: {path} {reason}, and everyone with access to a compiled program can read it. Remove the secret "
        "from the examples or the tools' results, then compile again."
    )
