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
    old, new = (re.findall(r"\s+|\S+", text) for text in (before, after))
    pieces: list[Piece] = []
    # As junk, a space alone isn't matched: it belongs to the change of the words around it.
    for operation, a, b, c, d in difflib.SequenceMatcher(str.isspace, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            pieces.append(Piece("same", "".join(old[a:b])))
            continue
        changes: tuple[tuple[Kind, list[str]], ...] = (("removed", old[a:b]), ("added", new[c:d]))
        pieces += [Piece(kind, "".join(texts)) for kind, texts in changes if texts]
    return tuple(pieces)


def mark(piece: Piece) -> str:
    """Return the text, marked ``[-removed-]`` or ``{+added+}`` if it changed, without the spaces around the words."""
    if piece.kind == "same":
        return piece.text
    core = piece.text.strip() or piece.text
    before, _, after = piece.text.partition(core)
    marked = f"[-{core}-]" if piece.kind == "removed" else f"{{+{core}+}}"
    return f"{before}{marked}{after}"


def render_paragraph(paragraph: Paragraph, around: int = 30) -> str:
    """Render a paragraph with its changes marked, and up to ``around`` characters of context on each side."""
    last = len(paragraph) - 1
    return "".join(
        _truncate(piece.text, around, index, last) if piece.kind == "same" else mark(piece)
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


def _truncate(text: str, around: int, index: int, last: int) -> str:
    head = "" if index == 0 else text[:around]
    tail = "" if index == last else text[-around:]
    return text if len(text) <= 2 * around + 3 else f"{head}…{tail}"
