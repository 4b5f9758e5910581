"""An agent's answer as another agent's LM reads it, and its work as progress of the tool that it is."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dspy.adapters.utils import serialize_for_json
from mlflow.entities import Document

from oneturn.sourced_text import SourcedText

_CHARS = 100


def answer_text(outputs: Mapping[str, Any], answer_field: str | None, sources: Sequence[Document]) -> SourcedText:
    """The answer, or all outputs as JSON if there are more of them; then a line with the sources and their ids."""
    only_text = list(outputs) == [answer_field]
    text = str(outputs[answer_field] or "") if answer_field and only_text else _json(outputs)
    if sources:
        text += "\n\nSources: " + "; ".join(_named(document) for document in sources)
    return SourcedText(text, sources)


def told_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool call in a few words."""
    values = ", ".join(value if isinstance(value, str) else _json(value) for value in arguments.values())
    return told_work(name, values)


def told_work(name: str, message: str) -> str:
    """What a tool does, in a few words."""
    return textwrap.shorten(f"{name}: {message}" if message else name, _CHARS, placeholder=" …")


def _named(document: Document) -> str:
    title = str(document.metadata.get("title") or "")
    return f"[{document.id}] {title}" if title and title != document.id else f"[{document.id}]"


def _json(value: Any) -> str:
    return json.dumps(serialize_for_json(value), ensure_ascii=False)
