"""Questions that occur twice, or nearly: within a split, and, which is worse, in two."""

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
_SECONDS = 2.0  # then a bar is shown
_BLOCK = 500  # rows compared with all others at once: bounds the memory
_WORD = re.compile(r"\w+")


class Pair(NamedTuple):
    """Two texts that are near, by their places in the given sequence, and how similar they are, 0 to 1."""

    first: int
    second: int
    similarity: float


def same_text(text: str) -> str:
    """What two texts share that differ only in case, spaces and the mark at their end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .?!")


def near_pairs(
    texts: Sequence[str],
    threshold: float = NEAR,
    progress: bool = False,
    *,
    most: int | None = None,
    parts: Sequence[Sequence[str]] = (),
) -> list[Pair]:
    """Return all pairs of texts whose similarity is ``threshold`` or more, in order.

    Args:
        texts: some thousands of them; the same text twice is better sorted out before.
        threshold: above 0, up to 1, which is the same trigrams.
        progress: whether to show a bar when it takes longer than two seconds.
        most: about how many pairs of a text with earlier ones are enough; those with the first are taken. Thousands
            of texts from one mould have millions.
        parts: what the texts consist of, a sequence as long as ``texts`` for each part; then each part must be as
            similar by itself. Two questions about one long passage aren't near because of the passage.
    """
    reading = tqdm(texts, desc="read", unit="text", delay=_SECONDS, disable=not progress)
    sets = [_trigrams(text) for text in reading]
    ranks = _by_rarity(sets)
    ranked = [sorted(ranks[gram] for gram in grams if gram in ranks) for grams in sets]
    whole = _Grams(_matrix(ranked, len(ranks)), np.array([len(grams) for grams in sets], dtype=float))
    # Two sets that share enough share one of their rarest. What only one text has is rarest of all: nobody shares it.
    prefixes = [_prefix(len(grams), threshold) for grams in sets]
    lone = [len(every) - len(grams) for every, grams in zip(sets, ranked, strict=True)]
    rarest = [grams[: max(size - own, 0)] for grams, size, own in zip(ranked, prefixes, lone, strict=True)]
    rests = whole.sizes - np.array(prefixes, dtype=float)
    rare = _matrix(rarest, len(ranks))
    # The shortest first: they rule out most pairs, for the least work.
    compared = sorted([whole, *map(_grams, parts)], key=lambda grams: float(grams.sizes.sum()))
    found = []
    starts = range(0, len(texts), _BLOCK)
    for start in tqdm(starts, desc="compare", unit=f"{_BLOCK} rows", delay=_SECONDS, disable=not progress):
        shared = (rare[start : start + _BLOCK] @ rare.T).tocoo()
        seconds, firsts = shared.row + start, shared.col
        possible = shared.data + np.maximum(rests[firsts], rests[seconds])  # that they can share in all
        enough = possible >= threshold / (1 + threshold) * (whole.sizes[firsts] + whole.sizes[seconds]) - 1e-9
        likely = enough & (firsts < seconds)
        found += _similar(compared, firsts[likely], seconds[likely], threshold, most)
    return sorted(found)


class _Grams(NamedTuple):
    """The trigrams of some texts: which of those that several have, and how many in all."""

    shared: Any
    sizes: Any

    def similarity(self, firsts: Any, seconds: Any) -> Any:
        """Of each first text with its second: what they share of what they have; 1 if they have nothing."""
        shared = np.asarray(self.shared[firsts].multiply(self.shared[seconds]).sum(axis=1)).ravel()
        both = self.sizes[firsts] + self.sizes[seconds] - shared
        return np.where(both > 0, shared / np.maximum(both, 1), 1.0)


def _grams(texts: Sequence[str]) -> _Grams:
    each = {text: _trigrams(text) for text in set(texts)}
    sets = [each[text] for text in texts]
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
    """The trigrams of a text's words, each with the numbers of the text: other numbers, other trigrams."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    numbers = " ".join(sorted(word for word in words if any(map(str.isdigit, word))))
    padded = (f"  {word} " for word in words)
    return {(numbers, word[start : start + 3]) for word in padded for start in range(len(word) - 2)}


def _by_rarity(sets: Sequence[set[tuple[str, str]]]) -> dict[tuple[str, str], int]:
    """A number for each trigram that several texts have, the rarest first."""
    counts = Counter(gram for grams in sets for gram in grams)
    shared = sorted((gram for gram, count in counts.items() if count > 1), key=lambda gram: (counts[gram], gram))
    return {gram: rank for rank, gram in enumerate(shared)}


def _prefix(size: int, threshold: float) -> int:
    return size - math.ceil(threshold * size - 1e-9) + 1 if size else 0


def _matrix(rows: Sequence[Sequence[int]], columns: int) -> Any:
    ends = np.cumsum([0, *map(len, rows)])
    cells = np.fromiter((cell for row in rows for cell in row), dtype=np.int64, count=int(ends[-1]))
    return sparse.csr_matrix((np.ones(len(cells), dtype=np.int32), cells, ends), shape=(len(rows), columns))


_NOTHING: tuple[Any, ...] = (None, {"messages": []})  # the latter is a dspy.History
_MOST = 20  # pairs of one row that are looked at
_GUARDED = {"test": 0, "dev": 1, "train": 2}


def input_text(values: Any, inputs: Sequence[str]) -> str:
    """What a row asks, as one text: its inputs; of a conversation's beginning, nothing came before."""
    return "\n".join(str(values[name]) for name in inputs if values.get(name) not in _NOTHING)


def duplicates(
    rows: Sequence[Row],
    inputs: Sequence[str],
    outputs: Sequence[str],
    threshold: float = NEAR,
    progress: bool = False,
) -> Iterator[DataFinding]:
    """A finding for each row that asks what another asks, or nearly so: of each other split, the worst.

    Args:
        rows: of all splits.
        inputs: the fields that ask.
        outputs: the fields that answer.
        threshold: how similar near-duplicates are, 0 to 1.
        progress: whether to show a bar when it takes longer than two seconds.
    """
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: _GUARDED[row.split]):
        text = same_text(input_text(row.values, inputs))
        if text and (before := first.setdefault(text, row)) is not row:
            yield _same(before, row, outputs)
    alone = list(first.values())
    parts = [[input_text(row.values, [name]) for row in alone] for name in inputs] if len(inputs) > 1 else []
    worst: dict[tuple[int, str], Pair] = {}
    for pair in near_pairs(list(first), threshold, progress, most=_MOST, parts=parts):
        place = pair.second, alone[pair.first].split
        worst[place] = max(worst.get(place, pair), pair, key=lambda found: _badness(found, alone, outputs))
    for pair in worst.values():
        yield _near(alone[pair.first], alone[pair.second], pair.similarity, outputs)


def _badness(pair: Pair, rows: Sequence[Row], outputs: Sequence[str]) -> tuple[bool, float]:
    return _agree(rows[pair.first], rows[pair.second], outputs), pair.similarity


def _same(kept: Row, row: Row, outputs: Sequence[str]) -> DataFinding:
    if not _agree(kept, row, outputs):
        message = f"asks what {_where(kept)} asks, and its answer is another."
        return _finding(Severity.error, "duplicate", row, message, "Find out which is right, and keep that one.")
    if kept.split != row.split:
        message = f"asks what {_where(kept)} asks."
        return _finding(Severity.error, "leak", row, message, f"Take it out of {row.split}.")
    return _finding(Severity.warning, "duplicate", row, f"asks what {_where(kept)} asks.", "Keep one of them.")


def _near(kept: Row, row: Row, similarity: float, outputs: Sequence[str]) -> DataFinding:
    agree = _agree(kept, row, outputs)
    and_answer = "with the same answer" if agree else "with another answer"
    message = f"asks nearly what {_where(kept)} asks ({similarity:.2f}), {and_answer}."
    if kept.split == row.split:
        return _finding(Severity.note, "near-duplicate", row, message, "Keep both only if they test two things.")
    severity = Severity.error if kept.split == "test" and agree else Severity.warning
    fix = f"Take it out of {row.split}, or ask something else." if agree else "See that neither gives the other away."
    return _finding(severity, "near-leak", row, message, fix)


def _agree(one: Row, other: Row, outputs: Sequence[str]) -> bool:
    both = [name for name in outputs if name in one.values and name in other.values]
    return all(_plain(one.values[name]) == _plain(other.values[name]) for name in both)


def _plain(value: Any) -> Any:
    return same_text(value) if isinstance(value, str) else value


def _where(row: Row) -> str:
    return f"{row.values['id']} ({row.split})" if row.values.get("id") else f"{row.file}, {row.place}"


def _finding(severity: Severity, check: str, row: Row, message: str, fix: str) -> DataFinding:
    return DataFinding(severity, check, f"{row.name} {message}", fix, row.file, row.place)
