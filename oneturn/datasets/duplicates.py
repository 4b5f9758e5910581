"""Find duplicate and near-duplicate questions within and across splits."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from oneturn.core.findings import DataFinding, Severity
from oneturn.datasets.splits import Row

NEAR = 0.7
_SECONDS = 2.0  # delay before the progress bar is shown
_BLOCK = 500  # rows compared with all others at once; limits memory
_WORD = re.compile(r"\w+")


class Pair(NamedTuple):
    """Two similar texts, by their indexes in the sequence, and their similarity, 0 to 1."""

    first: int
    second: int
    similarity: float


def same_text(text: str) -> str:
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
    """Return all pairs of texts whose trigram similarity is at least ``threshold``, in order.

    Args:
        texts: up to some thousands of texts. Remove exact duplicates first.
        threshold: the minimum similarity, above 0, at most 1 (identical trigrams).
        progress: whether to show a progress bar if the search takes longer than two seconds.
        most: the approximate maximum of pairs of one text with earlier texts; the first ones are returned. Thousands
            of texts from one template have millions of pairs.
        parts: the parts of the texts, one sequence as long as ``texts`` per part. Each part must then reach the
            threshold too, so that two questions about one long passage aren't similar because of the passage.
    """
    texts_with_progress = tqdm(texts, desc="read", unit="text", delay=_SECONDS, disable=not progress)
    sets = [_trigrams(text) for text in texts_with_progress]
    ranks = _by_rarity(sets)
    ranked = [sorted(ranks[gram] for gram in grams if gram in ranks) for grams in sets]
    full = _Grams(_matrix(ranked, len(ranks)), np.array([len(grams) for grams in sets], dtype=float))
    # Prefix filtering: two sets above the threshold share one of their rarest trigrams. Trigrams of only one text are
    # the rarest, and are never shared.
    prefixes = [_prefix(len(grams), threshold) for grams in sets]
    unshared = [len(all_grams) - len(grams) for all_grams, grams in zip(sets, ranked, strict=True)]
    rarest = [grams[: max(size - alone, 0)] for grams, size, alone in zip(ranked, prefixes, unshared, strict=True)]
    rests = full.sizes - np.array(prefixes, dtype=float)
    rare = _matrix(rarest, len(ranks))
    # Smallest parts first: they exclude most pairs at the lowest cost.
    compared = sorted([full, *map(_grams, parts)], key=lambda grams: float(grams.sizes.sum()))
    pairs = []
    starts = range(0, len(texts), _BLOCK)
    for start in tqdm(starts, desc="compare", unit=f"{_BLOCK} rows", delay=_SECONDS, disable=not progress):
        shared = (rare[start : start + _BLOCK] @ rare.T).tocoo()
        seconds, firsts = shared.row + start, shared.col
        possible = shared.data + np.maximum(rests[firsts], rests[seconds])  # upper bound of shared trigrams
        enough = possible >= threshold / (1 + threshold) * (full.sizes[firsts] + full.sizes[seconds]) - 1e-9
        likely = enough & (firsts < seconds)
        pairs += _similar(compared, firsts[likely], seconds[likely], threshold, most)
    return sorted(pairs)


class _Grams(NamedTuple):
    """The trigrams of some texts: a matrix of the shared ones, and the total number per text."""

    shared: Any
    sizes: Any

    def similarity(self, firsts: Any, seconds: Any) -> Any:
        """Return the Jaccard similarity of each pair of texts; 1 if both are empty."""
        shared = np.asarray(self.shared[firsts].multiply(self.shared[seconds]).sum(axis=1)).ravel()
        both = self.sizes[firsts] + self.sizes[seconds] - shared
        return np.where(both > 0, shared / np.maximum(both, 1), 1.0)


def _grams(texts: Sequence[str]) -> _Grams:
    trigrams = {text: _trigrams(text) for text in set(texts)}
    sets = [trigrams[text] for text in texts]
    ranks = _by_rarity(sets)
    ranked = [[ranks[gram] for gram in grams if gram in ranks] for grams in sets]
    return _Grams(_matrix(ranked, len(ranks)), np.array([len(grams) for grams in sets], dtype=float))


def _similar(compared: Sequence[_Grams], firsts: Any, seconds: Any, threshold: float, most: int | None) -> list[Pair]:
    order = np.argsort(firsts, kind="stable")
    counts = np.zeros(len(compared[0].sizes), dtype=int)
    pairs = []
    for start in range(0, len(order), _BLOCK * 10):
        chosen = order[start : start + _BLOCK * 10]
        if most is not None:
            chosen = chosen[counts[seconds[chosen]] < most]
        some, others = firsts[chosen], seconds[chosen]
        similarity = np.ones(len(chosen))
        for grams in compared:
            similarity = np.minimum(similarity, grams.similarity(some, others))
            near = similarity >= threshold - 1e-9
            some, others, similarity = some[near], others[near], similarity[near]
        np.add.at(counts, others, 1)
        rows = zip(some, others, similarity, strict=True)
        pairs += [Pair(int(first), int(second), float(value)) for first, second, value in rows]
    return pairs


def _trigrams(text: str) -> set[tuple[str, str]]:
    """Return the trigrams of a text's words, each paired with the text's numbers, so that other numbers never match."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    numbers = " ".join(sorted(word for word in words if any(map(str.isdigit, word))))
    padded = (f"  {word} " for word in words)
    return {(numbers, word[start : start + 3]) for word in padded for start in range(len(word) - 2)}


def _by_rarity(sets: Sequence[set[tuple[str, str]]]) -> dict[tuple[str, str], int]:
    """Return a rank for each trigram that occurs in several texts, rarest first."""
    counts = Counter(gram for grams in sets for gram in grams)
    shared = sorted((gram for gram, count in counts.items() if count > 1), key=lambda gram: (counts[gram], gram))
    return {gram: rank for rank, gram in enumerate(shared)}


def _prefix(size: int, threshold: float) -> int:
    return size - math.ceil(threshold * size - 1e-9) + 1 if size else 0


def _matrix(rows: Sequence[Sequence[int]], columns: int) -> Any:
    ends = np.cumsum([0, *map(len, rows)])
    cells = np.fromiter((cell for row in rows for cell in row), dtype=np.int64, count=int(ends[-1]))
    return sparse.csr_matrix((np.ones(len(cells), dtype=np.int32), cells, ends), shape=(len(rows), columns))


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
) -> Iterator[DataFinding]:
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
        text = same_text(input_text(row.values, inputs))
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


def _duplicate(original: Row, row: Row, outputs: Sequence[str]) -> DataFinding:
    if not _agree(original, row, outputs):
        message = f"has the same question as {_describe_row(original)} and a different answer."
        return _finding(Severity.error, "duplicate", row, message, "Check which answer is correct, and keep that row.")
    if original.split != row.split:
        message = f"has the same question as {_describe_row(original)}."
        return _finding(Severity.error, "leak", row, message, f"Remove it from {row.split}.")
    message = f"has the same question as {_describe_row(original)}."
    return _finding(Severity.warning, "duplicate", row, message, "Keep one of them.")


def _near_duplicate(original: Row, row: Row, similarity: float, outputs: Sequence[str]) -> DataFinding:
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
    return same_text(value) if isinstance(value, str) else value


def _describe_row(row: Row) -> str:
    return f"{row.values['id']} ({row.split})" if row.values.get("id") else f"{row.file}, {row.place}"


def _finding(severity: Severity, check: str, row: Row, message: str, fix: str) -> DataFinding:
    return DataFinding(severity, check, f"{row.name} {message}", fix, row.file, row.place)
