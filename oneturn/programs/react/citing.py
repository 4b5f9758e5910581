"""Citations that are supported: those of the sources that hold the numbers and words of the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache

from oneturn.core.steps import FinishedCall

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?")
_THOUSANDS = re.compile(r",(?=\d{3}(?:\D|$))")
_WORD = re.compile(r"[^\W\d_]{3,}")


def supported_citations(
    answer: str, cited: Sequence[str], calls: Iterable[FinishedCall], inputs: Iterable[str]
) -> list[str]:
    """Return the sources that an answer rests on, in the order in which they were read.

    A small LM often cites all that it has read, or the wrong one of two. If sources hold numbers of the answer, those
    are returned that hold them, as few as hold all, the cited ones first where several do. A number that a tool without
    documents returned, such as a sum, stands for the numbers of its arguments. If there are no such numbers, those of
    the cited sources are returned that hold words of the answer; if none does, others that do. A source whose id stands
    in the inputs, such as the number of an order's record, is returned too, and so is a cited source whose text isn't
    known, as in a run that resumes.

    Args:
        answer: the answer's text.
        cited: the ids that the LM cited; nothing is added where there are none.
        calls: the calls of the run, with their documents.
        inputs: the inputs of the run, as text.

    Returns:
        The ids; ``cited`` itself if no source holds a number or word of the answer.
    """
    calls = list(calls)
    texts = {str(each.id): each.page_content or "" for call in calls for each in call.documents}
    held = {source: _terms(text) for source, text in texts.items()}
    read = set().union(*held.values())
    wanted = _with_arguments(_terms(answer), calls, read)
    numbers = {term for term in wanted & read if term[0].isdigit()}
    support = {source: terms & (numbers or wanted) for source, terms in held.items()}
    missing = set().union(*support.values())
    if not cited or not missing:
        return list(cited)
    given = " ".join(inputs)
    named = {source for source in texts if _is_named(source, given)}
    kept = set() if numbers else {source for source in cited if support.get(source)}
    if not kept:
        kept = _cover(missing, support, sorted(texts, key=lambda source: (source not in cited, source in named)))
    kept |= named | {source for source in cited if not texts.get(source)}
    return [source for source in dict.fromkeys([*texts, *cited]) if source in kept]


def _is_named(source: str, given: str) -> bool:
    """Whether an id stands in a text. Only one with letters and digits counts: others are words or amounts, too."""
    if not (re.search(r"\d", source) and re.search(r"[^\W\d]", source)):
        return False
    return re.search(rf"(?<![\w-]){re.escape(source)}(?![\w-])", given, re.IGNORECASE) is not None


def _cover(terms: set[str], support: Mapping[str, set[str]], ranked: Sequence[str]) -> set[str]:
    """Return few sources that hold all terms together, of equally good ones the first in ``ranked``."""
    kept: set[str] = set()
    while terms:
        best = max(ranked, key=lambda source: len(support[source] & terms))
        kept.add(best)
        terms = terms - support[best]
    return kept


def _terms(text: str) -> set[str]:
    """Return the words of a text, and its numbers by value: "€1,450.00" has the number 1450."""
    return (set(_WORD.findall(text.lower())) - _stop_words()) | set(_numbers(text))


@cache
def _stop_words() -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN  # imports numpy

    return frozenset(STOPWORDS_EN) | {"yes", "per"}


def _numbers(text: str) -> list[str]:
    found = (_THOUSANDS.sub("", number).replace(",", ".") for number in _NUMBER.findall(text))
    return [f"{Decimal(number).normalize():f}" for number in found]


def _with_arguments(wanted: set[str], calls: Sequence[FinishedCall], read: set[str]) -> set[str]:
    """Replace each number that no source holds and a tool without documents returned by those of its arguments."""
    for call in reversed(calls):
        if call.documents or not (computed := wanted.intersection(_numbers(call.output)) - read):
            continue
        wanted = (wanted - computed).union(*(_numbers(str(value)) for value in call.args.values()))
    return wanted
