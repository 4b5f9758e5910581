"""Error messages for invalid configurations, and detection of secrets in them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from oneturn.core.secrets import find_secrets, is_secret_name, leaves
from oneturn.errors import ConfigError

_PROSE = ("possible_assignment",)  # guidelines and descriptions may say "password: optional"
_SECRET_REFERENCE = re.compile(r"\{\{secrets/[\w.@-]+/[\w.@-]+\}\}")  # resolved by Databricks
_VARIABLES = {"approvals.ledger": "approvals.ledger_env", "approvals.key_env": "approvals.key_env"}
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "list_type": "a list",
}


# Names that others give: of HTTP headers, whose values are names of variables, and of what is redacted.
_OWN_NAMES = re.compile(r"tools\.\d+\.headers\.|data\.redact\.")


def refuse_secrets(keys: Any, source: str) -> None:
    """Raise ``ConfigError`` if any value in a configuration looks like a secret; the message doesn't repeat it."""
    for path, key, value in leaves(keys):
        if not isinstance(value, str) or not value or _SECRET_REFERENCE.fullmatch(value):
            continue
        if key == "credentials" and value in ("agent", "user"):  # an allowed value, not a secret
            continue
        is_named_so = is_secret_name(key) and not _OWN_NAMES.match(path)
        if is_named_so or find_secrets(value, without=_PROSE):
            setting = _VARIABLES.get(path, "api_key_env")
            raise ConfigError(
                f"{source}: {path} looks like a secret, and a configuration is stored in plain text. Put the secret in "
                f"an environment variable, and set {setting} to the variable's name."
            )


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Return one line per validation error, with the key's full path, its value and the expected value."""
    all_keys = known_keys(model)
    return "\n".join(f"{source}: {_explain_one(details, all_keys)}" for details in error.errors(include_url=False))


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return all valid keys of a configuration as dotted paths, in declaration order.

    Keys of list entries are below ``*``, and also below the entry's kind if the list has several kinds.
    """
    keys = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        for place, section in _sections(field.annotation):
            keys += known_keys(section, f"{prefix}{name}.{place}")
    return keys


def _sections(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the sections of a field, each with its path below the field."""
    if get_origin(annotation) is not list:
        section = section_of(annotation)
        yield from [("", section)] if section is not None else []
        return
    models = list(_models(annotation))
    for section in models:
        kinds = get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()
        yield f"*.{kinds[0]}." if len(models) > 1 else "*.", section


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section class of a field, optional or not; ``None`` for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_of, getattr(annotation, "__args__", ()))), None)


def yaml_problem(error: Exception) -> str:
    """Describe a YAML error and its position in one line."""
    cause = error.__context__
    mark = getattr(cause, "problem_mark", None)
    if mark is None:
        return "it can't be parsed"
    problem = getattr(cause, "problem", None) or "unexpected end of file"
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


def _explain_one(details: ErrorDetails, all_keys: Sequence[str]) -> str:
    path = ".".join(map(str, details["loc"]))
    if details["type"] == "extra_forbidden":
        return _unknown_key(path, all_keys)
    if details["type"] == "missing":
        return f"{path} is missing."
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = details["ctx"].get("tag")
        kinds = details["ctx"].get("expected_tags") or ", ".join(_kinds(path, all_keys))
        return (
            f"{path}.kind should be one of {kinds}, not {kind!r}."
            if kind
            else f"{path}.kind is missing; it is one of {kinds}."
        )
    if details["type"] == "model_type" and not path:
        return "should hold a mapping of keys."
    if details["type"] == "value_error":
        message = str(details["ctx"]["error"])
        return f"{path} {message}." if message.startswith("should ") else f"{path}: {message}."
    expected = _EXPECTED.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    return f"{path} should be {expected}, not {_format_value(details['input'])}."


def _unknown_key(path: str, all_keys: Sequence[str]) -> str:
    section, _, key = re.sub(r"\.\d+(?=\.)", ".*", path).rpartition(".")
    siblings = [name for name in all_keys if name.rpartition(".")[0] == section]
    same_name = [name for name in all_keys if name.rpartition(".")[2] == key]
    nearest = (difflib.get_close_matches(f"{section}.{key}", siblings, n=1) or same_name or [""])[0]
    for number in re.findall(r"\.(\d+)(?=\.)", path):
        nearest = nearest.replace("*", number, 1)
    hint = f" Did you mean {nearest}?" if nearest else ""
    names = ", ".join(sorted(name.rpartition(".")[2] for name in siblings))
    parent = f" of {path.rpartition('.')[0]}" if section else ""
    return f"unknown key {path}.{hint} Valid keys{parent}: {names}."


def _kinds(path: str, all_keys: Sequence[str]) -> Iterator[str]:
    """Yield the kinds of a list's entries."""
    prefix = re.sub(r"\.\d+$", ".*.", path)
    names = (name.removeprefix(prefix) for name in all_keys if name.startswith(prefix))
    yield from dict.fromkeys(name.partition(".")[0] for name in names)


def _format_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping of keys"  # its values may be secrets
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
