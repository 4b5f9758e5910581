"""The sources that an answer cites, as annotations of its message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Document

from oneturn.steps import source


def url_citations(cited: Iterable[str], seen: Mapping[str, Document], text: str) -> list[dict[str, Any]]:
    """``url_citation`` annotations for the cited ids that the run has really seen, in the order cited.

    A citation of something that no tool gave is not a source, and gets none. Each covers the place where the text
    names it (``[id]``), or else the whole text: the answer as a whole rests on its sources.
    """
    known = [seen[id] for id in dict.fromkeys(cited) if id in seen]
    return [_annotation(document, *_place(f"[{document.id}]", text)) for document in known]


def _place(mark: str, text: str) -> tuple[int, int]:
    start = text.find(mark)
    return (start, start + len(mark)) if start >= 0 else (0, len(text))


def _annotation(document: Document, start: int, end: int) -> dict[str, Any]:
    told = source(document)
    place = {"start_index": start, "end_index": end}
    return {"type": "url_citation", "title": told["title"], "url": told["url"], **place}
