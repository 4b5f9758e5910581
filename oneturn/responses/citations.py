"""The sources that an answer cites, as annotations of its message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Document


def url_citations(cited: Iterable[str], seen: Mapping[str, Document], text: str) -> list[dict[str, Any]]:
    """``url_citation`` annotations for the cited ids that the run has really seen, in the order cited.

    A citation of something that no tool gave is not a source, and gets none. Each covers the whole text:
    the answer as a whole rests on its sources.
    """
    known = [seen[id] for id in dict.fromkeys(cited) if id in seen]
    return [_annotation(document, len(text)) for document in known]


def _annotation(document: Document, end: int) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "title": str(document.metadata.get("title") or document.id),
        "url": str(document.metadata.get("doc_uri") or document.id),
        "start_index": 0,
        "end_index": end,
    }
