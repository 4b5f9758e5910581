"""What changed in prose, word by word, paragraph by paragraph."""

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
    """A stretch of text that stayed, went or came."""

    kind: Kind
    text: str


Paragraph = tuple[Piece, ...]


def paragraphs(before: str, after: str) -> list[Paragraph]:
    """The paragraphs of two texts in one order, each with what changed in it; an unchanged one is a single piece."""
    old, new = _split(before), _split(after)
    found: list[Paragraph] = []
    for operation, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            found += [(Piece("same", text),) for text in old[a:b]]
        else:
            found += _changed(old[a:b], new[c:d])
    return found


def words(before: str, after: str) -> Paragraph:
    """What changed between two paragraphs, word by word."""
    old, new = re.findall(r"\s+|[^\s]+", before), re.findall(r"\s+|[^\s]+", after)
    return tuple(_merged(_pieces(old, new)))


def render_paragraph(paragraph: Paragraph, around: int = 30) -> str:
    """A paragraph as plain text: ``[-what went-]{+what came+}``, with so many characters of the rest around it."""
    marks = {"removed": "[-{}-]", "added": "{{+{}+}}", "same": "{}"}
    last = len(paragraph) - 1
    return "".join(
        marks[piece.kind].format(
            _shortened(piece.text, around, index, last) if piece.kind == "same" else piece.text.strip("\n")
        )
        for index, piece in enumerate(paragraph)
    )


def _split(text: str) -> list[str]:
    return [part.strip("\n") for part in re.split(r"\n\s*\n", text.strip())] if text.strip() else []


def _changed(old: Sequence[str], new: Sequence[str]) -> Iterator[Paragraph]:
    for before, after in zip_longest(old, new):
        if before is not None and after is not None and _alike(before, after):
            yield words(before, after)
            continue
        if before is not None:
            yield (Piece("removed", before),)
        if after is not None:
            yield (Piece("added", after),)


def _alike(before: str, after: str) -> bool:
    """Whether one was made of the other, so that marking the words is easier to read than both in full."""
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


def _merged(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """A lone space between two changed words belongs to the change."""
    found = list(pieces)
    changes: dict[Kind, str] = {"removed": "", "added": ""}
    for index, piece in enumerate(found):
        inside = piece.kind == "same" and not piece.text.strip() and 0 < index < len(found) - 1
        if piece.kind != "same" or inside:
            for kind in ("removed", "added") if inside else (piece.kind,):
                changes[kind] += piece.text
            continue
        yield from _flushed(changes)
        yield piece
    yield from _flushed(changes)


def _flushed(changes: dict[Kind, str]) -> Iterator[Piece]:
    for kind in ("removed", "added"):
        if changes[kind]:
            yield Piece(kind, changes[kind])
            changes[kind] = ""


def _shortened(text: str, around: int, index: int, last: int) -> str:
    head = "" if index == 0 else text[:around]
    tail = "" if index == last else text[-around:]
    return text if len(text) <= 2 * around + 3 else f"{head}…{tail}"
