"""Scorers for retrieval and citations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dspy

from oneturn.evaluation.run_record import cited_sources, run_record
from oneturn.evaluation.scorers.base import Scorer, Verdict, expected, f1, join_names, scorer, texts

Passage = Mapping[str, str]
Score = Callable[[Sequence[Passage], Sequence[str]], float]


def retrieval_recall(
    field: str = "expected_sources", *, k: int | None = None, name: str = "retrieval_recall"
) -> Scorer:
    """The share of the expected passages among the first ``k`` that the tools retrieved (recall at k).

    Args:
        field: the example's field with their ids or URLs.
        k: number of passages that count, over all searches in order; ``None`` for all.
        name: the column's name.
    """
    return _retrieval(
        name, field, k, lambda retrieved, wanted: _share(wanted, lambda each: _index_of(each, retrieved) is not None)
    )


def retrieval_precision(
    field: str = "expected_sources", *, k: int | None = None, name: str = "retrieval_precision"
) -> Scorer:
    """The share of the first ``k`` retrieved passages that are expected (precision at k); see ``retrieval_recall``."""
    return _retrieval(name, field, k, lambda found, wanted: _share(found, lambda each: _is_expected(each, wanted)))


def retrieval_mrr(field: str = "expected_sources", *, k: int | None = None, name: str = "retrieval_mrr") -> Scorer:
    """One divided by the rank of the first expected passage (reciprocal rank; the mean over rows is MRR)."""

    def score(retrieved: Sequence[Passage], wanted: Sequence[str]) -> float:
        ranks = [rank for rank, each in enumerate(retrieved, start=1) if _is_expected(each, wanted)]
        return 1 / ranks[0] if ranks else 0.0

    return _retrieval(name, field, k, score)


def names_of(passage: Passage) -> set[str]:
    """The names that identify a passage: its id and its URL."""
    return {passage[key] for key in ("id", "url") if passage.get(key)}


def _retrieval(name: str, field: str, k: int | None, score: Score) -> Scorer:
    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = texts(expected(example, field))
        retrieved = run_record(prediction).found[:k]
        if not wanted:
            return Verdict(None, f"Not judged: {field} expects no passage.")
        missing = [each for each in wanted if _index_of(each, retrieved) is None]
        names = join_names(str(each.get("id")) for each in retrieved)
        start = f"Not found: {join_names(missing)}; found" if missing else "All were found, among"
        feedback = f"{start}: {names}."
        return Verdict(score(retrieved, wanted), feedback)

    return scorer(name, judge, field=field, k=k)


def _index_of(wanted: str, retrieved: Sequence[Passage]) -> int | None:
    return next((index for index, each in enumerate(retrieved) if wanted in names_of(each)), None)


def _is_expected(passage: Passage, wanted: Sequence[str]) -> bool:
    return not names_of(passage).isdisjoint(wanted)


def _share(items: Sequence[Any], holds: Callable[[Any], bool]) -> float:
    return sum(map(holds, items)) / len(items) if items else 0.0


Measure = Literal["f1", "precision", "recall"]
Normal = Callable[[str], str]


def citations(
    field: str = "citations",
    *,
    output: str = "citations",
    measure: Measure = "f1",
    normal: Normal = str,
    name: str = "citation_match",
) -> Scorer:
    """Whether the expected sources are cited, and no others.

    Args:
        field: the example's field with the expected sources; an empty list for an answer that needs none.
        output: the prediction's field with the cited sources; without it, the run's sources are used.
        measure: ``"f1"``, ``"precision"`` or ``"recall"``.
        normal: normalizes a source, so that different spellings of it compare equal.
        name: the column's name.
    """

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = _unique(expected(example, field), normal)
        given = _unique(_cited(prediction, output), normal)
        shared = len(set(given) & set(wanted))
        scores = {
            "f1": f1(given, wanted),
            "precision": shared / len(given) if given else float(not wanted),
            "recall": shared / len(wanted) if wanted else 1.0,
        }
        return Verdict(scores[measure], _difference(given, wanted))

    return scorer(name, judge, field=field, output=output, measure=measure, normal=_name(normal))


def citations_read(*, output: str = "citations", normal: Normal = str, name: str = "citations_read") -> Scorer:
    """The share of the cited sources that the run's tools returned; 1 if none is cited."""

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        given = _unique(_cited(prediction, output), normal)
        read = {normal(source) for passage in run_record(prediction).found for source in names_of(passage)}
        unread = [source for source in given if source not in read]
        score = 1 - len(unread) / len(given) if given else 1.0
        if unread:
            return Verdict(score, f"You cite {join_names(unread)}, which no tool returned; cite only sources you read.")
        return Verdict(score, "Every cited source was read." if given else "Nothing is cited.")

    return scorer(name, judge, output=output, normal=_name(normal))


def citation_format(pattern: str, *, output: str = "citations", name: str = "citation_format") -> Scorer:
    """The share of the citations that fully match ``pattern`` and aren't duplicates; 1 if none is cited."""
    regex = re.compile(pattern)

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        given = _cited(prediction, output)
        malformed = [each for each in given if not regex.fullmatch(each)]
        duplicates = [each for index, each in enumerate(given) if each in given[:index] and each not in malformed]
        score = 1 - (len(malformed) + len(duplicates)) / len(given) if given else 1.0
        feedback = [f"These don't match {pattern}: {join_names(malformed)}."] if malformed else []
        feedback += [f"Cited more than once: {join_names(texts(duplicates))}."] if duplicates else []
        return Verdict(score, " ".join(feedback) or "The citations are well formed.")

    return scorer(name, judge, pattern=pattern, output=output)


def _cited(prediction: Any, output: str) -> list[str]:
    return cited_sources(prediction, output) or list(run_record(prediction).sources)


def _name(function: Normal) -> str:
    """Return a function's name, for the settings of a scorer."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def _unique(sources: Any, normal: Normal) -> list[str]:
    return list(dict.fromkeys(form for form in map(normal, texts(sources)) if form))


def _difference(given: Sequence[str], wanted: Sequence[str]) -> str:
    missing = [source for source in wanted if source not in given]
    surplus = [source for source in given if source not in wanted]
    feedback = [f"Cite {join_names(missing)}: the answer is based on it."] if missing else []
    feedback += [f"Don't cite {join_names(surplus)}: the answer isn't based on it."] if surplus else []
    return " ".join(feedback) or "The citations are right."
