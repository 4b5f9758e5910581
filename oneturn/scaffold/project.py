"""``write_project``: render the templates of a kind into a new folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, StrictUndefined

from oneturn.config import AgentConfig
from oneturn.errors import ConfigError
from oneturn.lm.providers import choice_for
from oneturn.scaffold.module_source import wrapped
from oneturn.scaffold.requirement import installed_requirement, required_packages

KINDS: Mapping[str, str] = {
    "react": "conversational, with tools: a retriever and a table",
    "extract": "structured: a text in, typed facts out",
}
"""The kinds of agents, each with a description."""

_SUMMARIES = {
    "react": "An agent that answers questions from passages and a table, with its sources.",
    "extract": "An agent that reads a text and returns its facts, typed.",
}
_QUESTIONS = {
    "react": "What is the daily rate in Paris?",
    "extract": "Stahl AG, shelves, EUR 1,250.00, pay by 30 September 2025.",
}
_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z](?:[a-z0-9_]{0,39}[a-z0-9])?")


def write_project(folder: Path, name: str, *, kind: str, lm: str) -> list[Path]:
    """Write a project with an agent that runs at once; return its files. Nothing is overwritten.

    Args:
        folder: the project's folder; created if it doesn't exist.
        name: the agent's name: lower-case letters, digits, and ``_`` between them.
        kind: one of :data:`KINDS`.
        lm: a DSPy model string, such as ``"databricks/<endpoint>"``.

    Raises:
        ConfigError: the name, the kind or the LM isn't valid, or the folder has one of the files already or can't be
            written.
        ProgramError: oneturn isn't installed, so that the project can't require it.
    """
    if kind not in KINDS:
        raise ConfigError(f"There is no kind {kind!r}; the kinds are {', '.join(KINDS)}.")
    values = {"summary": _SUMMARIES[kind], "question": _QUESTIONS[kind]}
    texts = {folder / path: text for path, text in _render(kind, _values(name, kind, lm) | values).items()}
    if existing := [path for path in texts if path.exists()]:
        raise ConfigError(f"{existing[0]} exists, and nothing is overwritten. Choose another name or folder.")
    return _write(texts)


def wrap_module(folder: Path, name: str, source: str, *, lm: str) -> tuple[list[Path], list[Path]]:
    """Write the files of an agent around a ``dspy.Module`` that one has.

    Args:
        folder: the folder that holds the module's file or package.
        name: the agent's name: lower-case letters, digits, and ``_`` between them.
        source: ``"my_module:program"``: a ``dspy.Module``, or a class or function that builds one.
        lm: a DSPy model string.

    Returns:
        The written files, and those that exist already and stay as they are, such as a README.

    Raises:
        ConfigError: the name or the LM isn't valid, the source can't be used, or the folder has an ``agent.py`` or
            can't be written.
        ProgramError: the program can't be served; or oneturn isn't installed.
    """
    if (folder / "agent.py").exists():
        raise ConfigError(f"{folder / 'agent.py'} exists, and nothing is overwritten.")
    values = _values(name, "module", lm) | wrapped(folder, source)
    texts = {folder / path: text for path, text in _render("module", values).items()}
    existing = sorted(path for path in texts if path.exists())
    return _write({path: text for path, text in texts.items() if path not in existing}), existing


def _write(texts: Mapping[Path, str]) -> list[Path]:
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise ConfigError(f"{path} can't be written: {error.strerror}. Choose another name or folder.") from error
    return sorted(texts)


def _values(name: str, kind: str, lm: str) -> dict[str, Any]:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"The name {name!r} should be lower-case letters, digits, and _ between them, at most 41 characters, such "
            "as travel_desk."
        )
    if name.replace("_", "-") in required_packages():
        raise ConfigError(f"The name {name!r} is that of a package that the project requires. Choose another one.")
    provider, _, model = lm.partition("/")
    if not (provider and model) or re.search(r"[\s#'\"{}]", lm):
        raise ConfigError(f"The LM {lm!r} should name the provider and the model, such as openai/gpt-4o-mini.")
    AgentConfig.read({"lm": {"model": lm}})  # for the embedded LM: its size
    choice = choice_for(lm)
    extras = ["notebooks", *([choice.extra] if choice.extra else [])]
    required, version = installed_requirement(extras)
    return {
        "name": name,
        "kind": kind,
        "lm": lm,
        "lm_kind": choice.kind,
        "lm_note": choice.note,
        "requirement": required,
        "version": version,
    }


def _render(kind: str, values: Mapping[str, Any]) -> dict[str, str]:
    environment = Environment(  # noqa: S701  # no HTML
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    texts = {}
    for layer in ("common", kind):
        for path, template in _templates(_TEMPLATES / layer, PurePosixPath()):
            texts[str(path)] = environment.from_string(template.read_text(encoding="utf-8")).render(values)
    return texts


def _templates(folder: Path, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the templates below a folder, each with the path that it is written to."""
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        name = re.sub(r"^dot_", ".", entry.name).removesuffix(".jinja")
        if entry.is_dir():
            yield from _templates(entry, place / name)
        elif entry.name.endswith(".jinja"):
            yield place / name, entry
