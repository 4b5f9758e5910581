"""The names of tools as functions of an LM's API, and calls of them as LMs write them.

OpenAI, Anthropic and Databricks take 64 letters, digits, ``_`` and ``-`` as a name. Tools of MCP servers have others.
LMs write a name with a namespace, in another case or with tokens of their chat template, and arguments in a wrapper.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import json_repair

from oneturn.core.serialization import plain
from oneturn.errors import ProgramError

ARGUMENT_KEYS = (
    "args",
    "arguments",
    "parameters",
    "input",
    "tool_args",
    "tool_input",
    "action_input",
    "next_tool_args",
)
"""The keys under which LMs write the arguments of a call."""

_MAX_LENGTH = 64
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_-]")
_TEMPLATE_TOKENS = re.compile(r"<[|｜].*$", re.DOTALL)
_NAMESPACE = re.compile(r"^(?:functions|function|default_api|tools|tool)[.:/]")
_SUFFIX = re.compile(r":\d+$|\.call$")  # Kimi's, and Llama's in Python
_FENCE = re.compile(r"^```\w*\s*|\s*```$")
_UNREAD = ("partial_json", "value")  # lm15's keys for arguments that aren't a JSON object


class FunctionNames:
    """The tools of a program and ``finish``, as an LM's API and the LM itself name them.

    Args:
        arguments: the names of each tool's arguments.

    Raises:
        ProgramError: two tools get the same name for the API.
    """

    def __init__(self, arguments: Mapping[str, Collection[str]]):
        self._arguments = arguments
        self._declared: dict[str, str] = {}
        for name in arguments:
            other = self._declared.setdefault(to_function_name(name), name)
            if other != name:
                raise ProgramError(
                    f"The tools {other!r} and {name!r} have the same name for an LM's API, "
                    f"{to_function_name(name)!r}. Rename one of them."
                )
        self._folded = {_fold(name): name for name in arguments}

    def __contains__(self, name: object) -> bool:
        return name in self._arguments

    def arguments(self, name: str) -> tuple[str, ...]:
        """Return the names of a tool's arguments, in their order; none if there is no such tool."""
        return tuple(self._arguments.get(name, ()))

    def resolve(self, written: str) -> str:
        """Return the tool that an LM means by a name; the name itself if there is no such tool."""
        if written in self._arguments:
            return written
        name = _TEMPLATE_TOKENS.sub("", written).strip().strip("`'\"")
        for candidate in (name, _SUFFIX.sub("", name), _SUFFIX.sub("", _NAMESPACE.sub("", name))):
            if declared := self._declared.get(candidate) or self._folded.get(_fold(candidate)):
                return declared
        return written

    def read_arguments(self, name: str, given: Any) -> dict[str, Any]:
        """Return the arguments of a call of ``name``, out of JSON text, a list or a wrapper if need be."""
        accepted = self._arguments.get(name, ())
        if isinstance(given, Mapping) and len(given) == 1 and (key := next(iter(given))) in _UNREAD:
            given = given if key in accepted else given[key]
        if isinstance(given, str):
            given = _parse(given)
        if isinstance(given, list) and len(given) == 1:
            given = given[0]
        if not isinstance(given, Mapping):
            scalar = given is not None and given != [] and len(accepted) == 1
            return {next(iter(accepted)): plain(given)} if scalar else {}
        folded = {_fold(each): each for each in accepted}
        inner = self._unwrap(given, accepted)
        named = {key if key in accepted else folded.get(_fold(str(key)), key): each for key, each in inner.items()}
        read: dict[str, Any] = plain(named)
        return read

    def _unwrap(self, given: Mapping[str, Any], accepted: Collection[str]) -> Mapping[str, Any]:
        """Return the inner arguments of ``{"arguments": {…}}`` and ``{"name": …, "arguments": {…}}``."""
        for key in ARGUMENT_KEYS:
            if key not in given or key in accepted or not set(given) <= {key, "name", "type", "id"}:
                continue
            inner = _parse(given[key]) if isinstance(given[key], str) else given[key]
            if isinstance(inner, Mapping) and set(inner) <= set(accepted):
                return inner
        return given


def to_function_name(name: str) -> str:
    """Return a tool's name as an LM's API takes it: a long one is cut and ends in a hash."""
    allowed = _NOT_ALLOWED.sub("_", name)
    if not allowed or not (allowed[0].isalpha() or allowed[0] == "_"):
        allowed = f"_{allowed}"
    if len(allowed) <= _MAX_LENGTH:
        return allowed
    return f"{allowed[: _MAX_LENGTH - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _fold(name: str) -> str:
    return _NOT_ALLOWED.sub("_", name).casefold()


def _parse(text: str) -> Any:
    """Return the value of JSON text, which may be in a fence, in single quotes or itself in JSON text."""
    text = _FENCE.sub("", text.strip())
    if not text or text in ("null", "None", "undefined"):
        return None
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        value = json_repair.loads(text) if text.startswith(("{", "[")) else text
    return _parse(value) if isinstance(value, str) and value != text and value.lstrip().startswith("{") else value
