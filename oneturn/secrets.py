"""Refuse what looks like a secret before it is written where others read it. No message repeats it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oneturn.errors import ProgramError

SECRET_KEY = re.compile(r"(^|_)(api_?key|token|password|passwd|secret|credentials?)$", re.IGNORECASE)

# Prompts and demos are prose about anything: what is matched here is no word of a language. The forms are the issuers'.
IN_PROSE = re.compile(
    r"""(?<![\w-])(?:
        sk[-_](?:[\w-]*[-_])?(?=[A-Za-z]*\d)[A-Za-z0-9]{16,}
        |(?:(?:dapi|dkea|dose)[0-9a-f]{32}
        |gh[opsur]_[A-Za-z0-9]{20,}
        |github_pat_\w{20,}
        |glpat-[\w-]{20,}
        |hf_(?=[A-Za-z]*\d)[A-Za-z0-9]{20,}
        |xox[abeprs]-(?=[A-Za-z-]*\d)[\w-]{12,}
        |(?:AKIA|ASIA)[0-9A-Z]{16}
        |AIza[\w-]{35}
        |eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*
        )(?!\w)
    )
    |-----BEGIN\ (?:[A-Z]+\ )*PRIVATE\ KEY-----
    |\w{1,20}://[^/\s:@]+:[^/\s@]+@[\w.-]
    |Bearer\s+(?=[\w.~+/-]*\d)(?=[\w.~+/-]*[A-Za-z])[\w.~+/-]{20,}""",
    re.VERBOSE,
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
    for path, key, value in leaves(found):
        if not isinstance(value, str):
            continue
        if name := next((name for name, secret in own.items() if secret in value), None):
            _refuse(source, path, f"holds the value of the environment variable {name}")
        if IN_PROSE.search(value) or (SECRET_KEY.search(key) and _LIKE_A_KEY.fullmatch(value)):
            _refuse(source, path, "looks like a secret")


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
