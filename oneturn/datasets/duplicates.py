"""Find duplicate and near-duplicate questions within and across splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from oneturn.core.findings import Finding, Severity
from oneturn.core.splits import Row
from oneturn.core.terminal import can_redraw

NEAR = 0.7
_SECONDS = 2.0  # delay before the progress bar is shown
_BLOCK = 200  # rows compared with all others at once; limits memory
_WORD = re.compile(r"\w+")


class Pair(NamedTuple):
    """Two similar texts, by their indexes in the sequence, and their similarity, 0 to 1."""

    first: int
    second: int
    similarity: float


def normalize_text(text: str) -> str:
    """Normalize a text: texts that differ only in case, whitespace or final punctuation become equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .?!")


def near_pairs(
    texts: Sequence[str],
    threshold: float = NEAR,
    progress: bool = False,
    *,
    most: int | None = None,
    parts: Sequence[Sequence[str]] = (),
) -> list[Pair]:
    """Return all pairs of texts whose trigram similarity (Jaccard) is at least ``threshold``, in order.

    Args:
        texts: up to some thousands of texts. Remove exact duplicates first.
        threshold: the minimum similarity, above 0, at most 1 (identical trigrams).
        progress: whether to show a progress bar if the search takes longer than two seconds.
        most: the maximum of pairs of one text with earlier texts; the first ones are returned. Thousands of texts from
            one template have millions of pairs.
        parts: the parts of the texts, one sequence as long as ``texts`` per part. Each part must then reach the
            threshold too, so that two questions about one long passage aren't similar because of the passage.
    """
    compared = [_trigram_matrix(column) for column in (texts, *parts)]
    pairs = []
    starts = range(0, len(texts), _BLOCK)
    for start in tqdm(
        starts, desc="compare", unit=f"{_BLOCK} rows", delay=_SECONDS, disable=not (progress and can_redraw())
    ):
        rows = slice(start, min(start + _BLOCK, len(texts)))
        similarity = _similarities(compared[0], rows, 0.0)
        for part in compared[1:]:
            similarity = np.minimum(similarity, _similarities(part, rows, 1.0))
        near = np.tril(similarity >= threshold - 1e-9, k=start - 1)  # pairs of a text with earlier ones
        for offset, matches in enumerate(near):
            firsts = np.flatnonzero(matches)[:most]
            pairs += [Pair(int(first), start + offset, float(similarity[offset, first])) for first in firsts]
    return sorted(pairs)


def _trigram_matrix(texts: Sequence[str]) -> Any:
    """Return which text (row) has which trigram (column)."""
    from sklearn.feature_extraction.text import CountVectorizer

    if not any(map(_trigrams, texts)):  # CountVectorizer refuses an empty vocabulary
        return sparse.csr_matrix((len(texts), 1), dtype=np.float32)
    return CountVectorizer(analyzer=_trigrams, binary=True, dtype=np.float32).fit_transform(texts)


def _similarities(trigrams: Any, rows: slice, of_empty: float) -> Any:
    """Return the Jaccard similarity of each of ``rows`` with every row up to the last of them.

    Args:
        trigrams: the matrix of the texts.
        rows: the rows to compare.
        of_empty: the similarity of two texts without a trigram.
    """
    sizes = trigrams.sum(axis=1, dtype=np.float64)
    shared = np.asarray((trigrams[rows] @ trigrams[: rows.stop].T).todense(), dtype=np.float64)
    union = np.asarray(sizes[rows] + sizes[: rows.stop].T) - shared
    return np.divide(shared, union, out=np.full_like(shared, of_empty), where=union > 0)


def _trigrams(text: str) -> set[tuple[str, str]]:
    """Return the trigrams of a text's words, each paired with the text's numbers, so that other numbers never match."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    numbers = " ".join(sorted(word for word in words if any(map(str.isdigit, word))))
    padded = (f"  {word} " for word in words)
    return {(numbers, word[start : start + 3]) for word in padded for start in range(len(word) - 2)}


_EMPTY: tuple[Any, ...] = (None, {"messages": []})  # the second is an empty dspy.History
_MAX_PAIRS = 20  # pairs compared per row
_SPLIT_PRIORITY = {"test": 0, "dev": 1, "train": 2}


def input_text(values: Any, inputs: Sequence[str]) -> str:
    """Return a row's inputs as one text, without null values and empty histories."""
    return "\n".join(str(values[name]) for name in inputs if values.get(name) not in _EMPTY)


def duplicates(
    rows: Sequence[Row],
    inputs: Sequence[str],
    outputs: Sequence[str],
    threshold: float = NEAR,
    progress: bool = False,
) -> Iterator[Finding]:
    """Yield a finding for each duplicate row and, per other split, for its worst near-duplicate.

    Args:
        rows: the rows of all splits.
        inputs: the names of the input fields.
        outputs: the names of the output fields.
        threshold: the minimum similarity of near-duplicates, above 0, at most 1.
        progress: whether to show a progress bar if the search takes longer than two seconds.
    """
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: _SPLIT_PRIORITY[row.split]):
        text = normalize_text(input_text(row.values, inputs))
        if text and (before := first.setdefault(text, row)) is not row:
            yield _duplicate(before, row, outputs)
    unique = list(first.values())
    parts = [[input_text(row.values, [name]) for row in unique] for name in inputs] if len(inputs) > 1 else []
    worst: dict[tuple[int, str], Pair] = {}
    for pair in near_pairs(list(first), threshold, progress, most=_MAX_PAIRS, parts=parts):
        place = pair.second, unique[pair.first].split
        worst[place] = max(worst.get(place, pair), pair, key=lambda candidate: _pair_rank(candidate, unique, outputs))
    for pair in worst.values():
        yield _near_duplicate(unique[pair.first], unique[pair.second], pair.similarity, outputs)


def _pair_rank(pair: Pair, rows: Sequence[Row], outputs: Sequence[str]) -> tuple[bool, float]:
    return _agree(rows[pair.first], rows[pair.second], outputs), pair.similarity


def _duplicate(original: Row, row: Row, outputs: Sequence[str]) -> Finding:
    if not _agree(original, row, outputs):
        message = f"has the same question as {_describe_row(original)} and a different answer."
        return _finding(Severity.error, "duplicate", row, message, "Check which answer is correct, and keep that row.")
    if original.split != row.split:
        message = f"has the same question as {_describe_row(original)}."
        return _finding(Severity.error, "leak", row, message, f"Remove it from {row.split}.")
    message = f"has the same question as {_describe_row(original)}."
    return _finding(Severity.warning, "duplicate", row, message, "Keep one of them.")


def _near_duplicate(original: Row, row: Row, similarity: float, outputs: Sequence[str]) -> Finding:
    agree = _agree(original, row, outputs)
    and_answer = "with the same answer" if agree else "with a different answer"
    message = f"has nearly the same question as {_describe_row(original)} ({similarity:.2f}), {and_answer}."
    if original.split == row.split:
        return _finding(Severity.note, "near-duplicate", row, message, "Keep both only if they test different things.")
    severity = Severity.error if original.split == "test" and agree else Severity.warning
    fix = f"Remove it from {row.split}, or change the question." if agree else "Check that neither row leaks the other."
    return _finding(severity, "near-leak", row, message, fix)


def _agree(one: Row, other: Row, outputs: Sequence[str]) -> bool:
    both = [name for name in outputs if name in one.values and name in other.values]
    return all(_plain(one.values[name]) == _plain(other.values[name]) for name in both)


def _plain(value: Any) -> Any:
    return normalize_text(value) if isinstance(value, str) else value


def _describe_row(row: Row) -> str:
    return f"{row.values['id']} ({row.split})" if row.values.get("id") else f"{row.file}, {row.place}"


def _finding(severity: Severity, check: str, row: Row, message: str, fix: str) -> Finding:
    return Finding(severity, check, f"{row.name} {message}", fix, row.file, row.place)
