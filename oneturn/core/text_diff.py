"""Word-level diff of prose, paragraph by paragraph."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

Kind = Literal["same", "removed", "added"]


@dataclass(frozen=True)
class Piece:
    """A span of text that is unchanged, removed or added."""

    kind: Kind
    text: str


Paragraph = tuple[Piece, ...]


def paragraphs(before: str, after: str) -> list[Paragraph]:
    """Return the paragraphs of two texts, merged in order, with their changes; an unchanged one is a single piece."""
    old, new = _split(before), _split(after)
    result: list[Paragraph] = []
    for operation, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            result += [(Piece("same", text),) for text in old[a:b]]
        else:
            result += _diff_paragraphs(old[a:b], new[c:d])
    return result


def words(before: str, after: str) -> Paragraph:
    """Return the word-level diff of two paragraphs."""
    old, new = re.findall(r"\s+|[^\s]+", before), re.findall(r"\s+|[^\s]+", after)
    return tuple(_merge_spaces(_pieces(old, new)))


def render_paragraph(paragraph: Paragraph, around: int = 30) -> str:
    """Render a paragraph as ``[-removed-]{+added+}``, with up to ``around`` characters of context on each side."""
    marks = {"removed": "[-{}-]", "added": "{{+{}+}}", "same": "{}"}
    last = len(paragraph) - 1
    return "".join(
        marks[piece.kind].format(
            _truncate(piece.text, around, index, last) if piece.kind == "same" else piece.text.strip("\n")
        )
        for index, piece in enumerate(paragraph)
    )


def _split(text: str) -> list[str]:
    return [part.strip("\n") for part in re.split(r"\n\s*\n", text.strip())] if text.strip() else []


def _diff_paragraphs(old: Sequence[str], new: Sequence[str]) -> Iterator[Paragraph]:
    for before, after in zip_longest(old, new):
        if before is not None and after is not None and _is_similar(before, after):
            yield words(before, after)
            continue
        if before is not None:
            yield (Piece("removed", before),)
        if after is not None:
            yield (Piece("added", after),)


def _is_similar(before: str, after: str) -> bool:
    """Whether the texts are similar enough that a word diff is easier to read than both in full."""
    return difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False).ratio() >= 0.4


def _pieces(old: Sequence[str], new: Sequence[str]) -> Iterator[Piece]:
    for operation, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            yield Piece("same", "".join(old[a:b]))
            continue
        if b > a:
            yield Piece("removed", "".join(old[a:b]))
        if d > c:
            yield Piece("added", "".join(new[c:d]))


def _merge_spaces(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Merge a single space between two changed words into the change."""
    all_pieces = list(pieces)
    changes: dict[Kind, str] = {"removed": "", "added": ""}
    for index, piece in enumerate(all_pieces):
        inside = piece.kind == "same" and not piece.text.strip() and 0 < index < len(all_pieces) - 1
        if piece.kind != "same" or inside:
            for kind in ("removed", "added") if inside else (piece.kind,):
                changes[kind] += piece.text
            continue
        yield from _flush(changes)
        yield piece
    yield from _flush(changes)


def _flush(changes: dict[Kind, str]) -> Iterator[Piece]:
    for kind in ("removed", "added"):
        if changes[kind]:
            yield Piece(kind, changes[kind])
            changes[kind] = ""


def _truncate(text: str, around: int, index: int, last: int) -> str:
    head = "" if index == 0 else text[:around]
    tail = "" if index == last else text[-around:]
    return text if len(text) <= 2 * around + 3 else f"{head}…{tail}"
