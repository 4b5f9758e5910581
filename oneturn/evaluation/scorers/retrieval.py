"""Whether a run found the right passages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dspy

from oneturn.evaluation.run_record import cited, run_record
from oneturn.evaluation.scorers.base import Scorer, Verdict, expected, f1, listed, scorer, texts

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
        field: the example's field with the expected sources; an empty list for an answer that rests on none.
        output: the prediction's field with the cited ones. An endpoint's sources are read where it has no such output.
        measure: ``"f1"``, ``"precision"`` or ``"recall"``.
        normal: gives two ways of writing a source the same form.
        name: of the column.
    """

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        wanted = _each(expected(example, field), normal)
        given = _each(_cited(prediction, output), normal)
        shared = len(set(given) & set(wanted))
        scores = {
            "f1": f1(given, wanted),
            "precision": shared / len(given) if given else float(not wanted),
            "recall": shared / len(wanted) if wanted else 1.0,
        }
        return Verdict(scores[measure], _difference(given, wanted))

    return scorer(name, judge, field=field, output=output, measure=measure)


def citations_read(*, output: str = "citations", normal: Normal = str, name: str = "citations_read") -> Scorer:
    """The share of the cited sources that the run's tools really gave; 1 where none is cited."""

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        given = _each(_cited(prediction, output), normal)
        read = {normal(each) for found in run_record(prediction).found for each in names_of(found)}
        unread = [each for each in given if each not in read]
        score = 1 - len(unread) / len(given) if given else 1.0
        if unread:
            return Verdict(score, f"You cite {listed(unread)}, which no tool gave; cite what you have read.")
        return Verdict(score, "Every cited source was read." if given else "Nothing is cited.")

    return scorer(name, judge, output=output)


def citation_format(pattern: str, *, output: str = "citations", name: str = "citation_format") -> Scorer:
    """The share of the citations that match ``pattern`` as a whole and stand there once; 1 where none is cited."""
    form = re.compile(pattern)

    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        given = _cited(prediction, output)
        wrong = [each for each in given if not form.fullmatch(each)]
        twice = [each for place, each in enumerate(given) if each in given[:place] and each not in wrong]
        score = 1 - (len(wrong) + len(twice)) / len(given) if given else 1.0
        told = [f"These don't look like {pattern}: {listed(wrong)}."] if wrong else []
        told += [f"Cited more than once: {listed(texts(twice))}."] if twice else []
        return Verdict(score, " ".join(told) or "The citations are well formed.")

    return scorer(name, judge, pattern=pattern, output=output)


def _cited(prediction: Any, output: str) -> list[str]:
    return cited(prediction, output) or list(run_record(prediction).sources)


def _each(sources: Any, normal: Normal) -> list[str]:
    return list(dict.fromkeys(form for form in map(normal, texts(sources)) if form))


def _difference(given: Sequence[str], wanted: Sequence[str]) -> str:
    missing = [source for source in wanted if source not in given]
    surplus = [source for source in given if source not in wanted]
    told = [f"Cite {listed(missing)}, which the answer rests on."] if missing else []
    told += [f"Don't cite {listed(surplus)}: the answer doesn't rest on it."] if surplus else []
    return " ".join(told) or "The citations are right."
