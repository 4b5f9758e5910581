"""Whether a run found the right passages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

from oneturn.run_record import run_record
from oneturn.scorers.scorer import Scorer, Verdict, expected, listed, scorer, texts

Passage = Mapping[str, str]
Score = Callable[[Sequence[Passage], Sequence[str]], float]


def retrieval_recall(
    field: str = "expected_sources", *, k: int | None = None, name: str = "retrieval_recall"
) -> Scorer:
    """The share of the expected passages that are among the first ``k`` which the tools found (recall at k).

    Args:
        field: the example's field with their ids, or addresses.
        k: how many count, of all searches together in the order they came; ``None`` for all.
        name: of the column.
    """
    return _retrieval(
        name, field, k, lambda found, wanted: _share(wanted, lambda each: _place(each, found) is not None)
    )


def retrieval_precision(
    field: str = "expected_sources", *, k: int | None = None, name: str = "retrieval_precision"
) -> Scorer:
    """The share of the first ``k`` found passages that are expected ones (precision at k); see ``retrieval_recall``."""
    return _retrieval(name, field, k, lambda found, wanted: _share(found, lambda each: _is_one(each, wanted)))


def retrieval_mrr(field: str = "expected_sources", *, k: int | None = None, name: str = "retrieval_mrr") -> Scorer:
    """One divided by the place of the first expected passage (reciprocal rank; a mean of them is MRR)."""

    def score(found: Sequence[Passage], wanted: Sequence[str]) -> float:
        places = [place for place, each in enumerate(found, start=1) if _is_one(each, wanted)]
        return 1 / places[0] if places else 0.0

    return _retrieval(name, field, k, score)


def names_of(passage: Passage) -> set[str]:
    """What a passage may be called by: its id, and its address."""
    return {passage[key] for key in ("id", "url") if passage.get(key)}


def _retrieval(name: str, field: str, k: int | None, score: Score) -> Scorer:
    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = texts(expected(example, field))
        found = run_record(prediction).found[:k]
        if not wanted:
            return Verdict(None, f"Not judged: {field} expects no passage.")
        missing = [each for each in wanted if _place(each, found) is None]
        got = listed(str(each.get("id")) for each in found)
        told = f"Not found: {listed(missing)}; found: {got}." if missing else f"All were found, among: {got}."
        return Verdict(score(found, wanted), told)

    return scorer(name, judge, field=field, k=k)


def _place(wanted: str, found: Sequence[Passage]) -> int | None:
    return next((place for place, each in enumerate(found) if wanted in names_of(each)), None)


def _is_one(found: Passage, wanted: Sequence[str]) -> bool:
    return not names_of(found).isdisjoint(wanted)


def _share(items: Sequence[Any], holds: Callable[[Any], bool]) -> float:
    return sum(map(holds, items)) / len(items) if items else 0.0
