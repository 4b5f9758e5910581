"""What a person reads when a configuration is wrong, and how a secret in it is refused without repeating it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from oneturn.core.secrets import IN_PROSE, SECRET_KEY, leaves
from oneturn.errors import ConfigError

_SECRET_VALUE = re.compile(
    r"""^(Bearer\s+\S+
        |(sk-|sk_|dapi|dkea|dose|gh[opsu]_|github_pat_|hf_|xox[abp]-|AKIA|AIza|eyJ)(?=\S*\d)\S{12,}
        |\w+://[^/\s:@]+:[^/\s@]+@.*)$""",
    re.VERBOSE,
)
_SECRET_REFERENCE = re.compile(r"\{\{secrets/[\w.@-]+/[\w.@-]+\}\}")  # Databricks puts the secret in, not we
_PLAIN_WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "list_type": "a list",
}


def refuse_secrets(found: Any, source: str) -> None:
    """Raise ``ConfigError`` if any value in a configuration looks like a secret; the message doesn't repeat it."""
    for path, key, value in leaves(found):
        if not isinstance(value, str) or not value or _SECRET_REFERENCE.fullmatch(value):
            continue
        if key == "credentials" and value in ("agent", "user"):  # whose, not which
            continue
        if SECRET_KEY.search(key) or _SECRET_VALUE.match(value) or IN_PROSE.search(value):
            raise ConfigError(
                f"{source}: {path} looks like a secret, and a configuration is stored in the clear. Put it in an "
                "environment variable, and name that variable in api_key_env."
            )


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Return one line for each mistake, with the key's full path, its value, and what would be right."""
    known = known_keys(model)
    return "\n".join(f"{source}: {_explain_one(details, known)}" for details in error.errors(include_url=False))


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every key that a configuration may have, as dotted paths, in the order of their declaration.

    Keys of a list's entries stand below ``*``, and below their kind where each kind has keys of its own.
    """
    keys = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        for place, section in _sections(field.annotation):
            keys += known_keys(section, f"{prefix}{name}.{place}")
    return keys


def _sections(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections that a field holds, each with its place below the field."""
    if get_origin(annotation) is not list:
        section = section_of(annotation)
        yield from [("", section)] if section is not None else []
        return
    found = list(_models(annotation))
    for section in found:
        kinds = get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()
        yield f"*.{kinds[0]}." if len(found) > 1 else "*.", section


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, be it optional or not; ``None`` for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_of, getattr(annotation, "__args__", ()))), None)


def yaml_problem(error: Exception) -> str:
    """Return what is wrong with a YAML file and where, in one line."""
    cause = error.__context__
    mark = getattr(cause, "problem_mark", None)
    if mark is None:
        return "it can't be parsed"
    return f"{getattr(cause, 'problem', None) or 'it ends too early'} (line {mark.line + 1}, column {mark.column + 1})"


def _explain_one(details: ErrorDetails, known: Sequence[str]) -> str:
    path = ".".join(map(str, details["loc"]))
    if details["type"] == "extra_forbidden":
        return _unknown_key(path, known)
    if details["type"] == "missing":
        return f"{path} is missing."
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = details["ctx"].get("tag")
        kinds = details["ctx"].get("expected_tags") or ", ".join(_kinds(path, known))
        return (
            f"{path}.kind should be one of {kinds}, not {given!r}."
            if given
            else f"{path}.kind is missing; it is one of {kinds}."
        )
    if details["type"] == "model_type" and not path:
        return "should hold a mapping of keys."
    if details["type"] == "value_error":
        words = str(details["ctx"]["error"])
        return f"{path} {words}." if words.startswith("should ") else f"{path}: {words}."
    words = _PLAIN_WORDS.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    return f"{path} should be {words}, not {_shown(details['input'])}."


def _unknown_key(path: str, known: Sequence[str]) -> str:
    section, _, key = re.sub(r"\.\d+(?=\.)", ".*", path).rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    elsewhere = [name for name in known if name.rpartition(".")[2] == key]
    nearest = (difflib.get_close_matches(f"{section}.{key}", siblings, n=1) or elsewhere or [""])[0]
    for number in re.findall(r"\.(\d+)(?=\.)", path):
        nearest = nearest.replace("*", number, 1)
    hint = f" Did you mean {nearest}?" if nearest else ""
    names = ", ".join(sorted(name.rpartition(".")[2] for name in siblings))
    of = f" of {path.rpartition('.')[0]}" if section else ""
    return f"there is no key {path}.{hint} Known keys{of}: {names}."


def _kinds(path: str, known: Sequence[str]) -> Iterator[str]:
    """The kinds of a list's entries."""
    place = re.sub(r"\.\d+$", ".*.", path)
    yield from dict.fromkeys(name.removeprefix(place).partition(".")[0] for name in known if name.startswith(place))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping of keys"  # its values may be anybody's
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
