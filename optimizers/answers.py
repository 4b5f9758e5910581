"""Compare an answer with the gold answer: numbers, dates and times by value, other text by its words.

A gold answer with quantities (money, durations, dates, times, plain numbers) is compared by these alone: "€55.50"
equals "55.5 EUR", "17 June 2025" equals "2025-06-17", "13:00" equals "1 pm". Of the answer's quantities, only those
with the gold answer's unit count; without any, those without a unit, in a unit that can be converted ("24 hours", "one
day"), or in words ("half" for "50%"). Either all of them equal the gold ones, or the last of them do and are given as a
result ("3 × €14.50 + €12.00 = €55.50", "… in total €55.50"). A list of candidates is wrong.

Any other gold answer must appear in the answer word for word, neither negated nor as one of two alternatives, and the
answer must have at most ``MAX_WORDS`` words, so that a copied passage doesn't count. "&" is "and", singular is plural,
"no charge" is "free", "two times" is "twice", and a gold number in words may be written in digits.
"""

from __future__ import annotations

import re

from optimizers.quantities import Quantity, normalize, quantities, write_digits

MAX_WORDS = 40

_RESULT = re.compile(r"=|≈|\b(?:total|sum|altogether|equals?|makes?|comes? to|so|thus|therefore|result|answer)\b")
_NEGATIONS = {"not", "never", "isnt", "wasnt", "hasnt", "arent", "cannot"}
_FILLERS = {"a", "an", "the"}
_FREE = (
    r"\b(?:(?:at |for )?no (?:extra |additional )?(?:charge|costs?|fee)|(?:costs?|pay|charge) nothing)\b|^nothing\W*$"
    r"|€ ?0(?:\.00)?(?![\d.,])|(?<![\d.,])0(?:\.00)? ?(?:€|eur|euros?)(?!\w)"
)
_SYNONYMS = [
    (re.compile(_FREE), "free"),
    (re.compile(r"\b(?:1|one) time\b|\b1 ?x\b|^1\W*$"), "once"),
    (re.compile(r"\b(?:2|two) times\b|\b2 ?x\b|^2\W*$"), "twice"),
]
_SIBILANT_E = re.compile(r"(?:x|z|ch|sh|ss)e$")


def same_answer(gold: str, answer: str) -> bool:
    """Return whether ``answer`` matches the gold answer, by the rules in the module's docstring."""
    gold, answer = normalize(gold), normalize(answer)
    if expected := quantities(gold):
        return _has_quantities(expected, answer)
    if _has_words(gold, answer):
        return True
    digits = write_digits(gold)
    spelled = quantities(digits)
    if not spelled or _occurs(_words(answer), _words(gold)):  # negated, or one of two alternatives
        return False
    if spelled[-1].unit or not _words(digits[: spelled[0].start] + digits[spelled[-1].end :]):
        return _has_quantities(spelled, answer)
    return _has_words(digits, write_digits(answer))


def _has_quantities(expected: list[Quantity], answer: str) -> bool:
    unit, digits = expected[-1].unit, write_digits(answer)
    written, spelled = quantities(answer), quantities(digits)
    same = [quantity for quantity in written if quantity.has_unit(unit)]
    if len(same) >= len(expected):
        return _gives(expected, same, answer)
    same_spelled = [quantity for quantity in spelled if quantity.has_unit(unit)]
    unitless = [quantity for quantity in written if quantity.unit is None]
    unitless_spelled = [quantity for quantity in spelled if quantity.unit is None]
    converted = [quantity for quantity in spelled if quantity.measures_like(unit)]
    return (
        (not same and _gives(expected, unitless, answer))
        or _gives(expected, same_spelled, digits)
        or (not written and not same_spelled and _gives(expected, unitless_spelled, digits))
        or _gives(expected, converted, digits)
    )


def _gives(expected: list[Quantity], found: list[Quantity], text: str) -> bool:
    """Return whether the quantities found are those expected, or end with them as the result of a calculation."""
    if len(found) < len(expected):
        return False
    last, others = found[-len(expected) :], found[: -len(expected)]
    if not all(quantity.equals(gold) for quantity, gold in zip(last, expected, strict=True)):
        return False
    if all(any(quantity.equals(gold) for gold in expected) for quantity in others):
        return True
    return bool(_RESULT.search(text[others[-1].end : last[0].start]))


def _has_words(gold: str, answer: str) -> bool:
    words = _words(answer)
    return len(words) <= MAX_WORDS and all(_states(words, _words(part)) for part in re.split(r"\band\b|,", gold))


def _words(text: str) -> list[str]:
    """Return the text's words, without articles, apostrophes and plural endings, with one word for synonyms."""
    text = re.sub(r"['’‘]", "", text)
    for pattern, word in _SYNONYMS:
        text = pattern.sub(f" {word} ", text)
    return [_singular(word) for word in re.findall(r"\w+", text) if word not in _FILLERS]


def _singular(word: str) -> str:
    """Return one form for a word and its plural: "boxes" and "box", "batteries" and "battery"."""
    if len(word) > 3 and not word.endswith("ss"):
        word = word.removesuffix("s")
    if len(word) > 3 and word.endswith("ie"):
        return f"{word[:-2]}y"
    return word[:-1] if _SIBILANT_E.search(word) else word


def _occurs(words: list[str], part: list[str]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))


def _states(words: list[str], part: list[str]) -> bool:
    """Return whether ``words`` contains ``part``, neither negated nor as one of two alternatives."""
    size = len(part)
    for start in range(len(words) - size + 1):
        around = words[start - 1 : start] + words[start + size : start + size + 1]
        negated = _NEGATIONS.intersection(words[max(start - 3, 0) : start])
        if size and words[start : start + size] == part and not negated and "or" not in around:
            return True
    return False
