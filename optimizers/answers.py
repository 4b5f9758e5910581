"""Compare an answer with the gold answer: numbers, dates and times by value, other text by its words.

A gold answer with values (money, durations, dates, times, plain numbers) is compared by its values alone: "€55.50"
equals "55.5 EUR", "17 June 2025" equals "2025-06-17", "13:00" equals "1 pm". Of the answer's values, only those with
the gold answer's unit count, or those without a unit if there are none. Either all of them equal the gold values, or
the last of them do and are given as a result ("3 × €14.50 + €12.00 = €55.50", "… in total €55.50"). A list of
candidates is wrong.

Any other gold answer must appear in the answer word for word, neither negated nor as one of two alternatives, and the
answer must have at most ``MAX_WORDS`` words, so that a copied passage doesn't count.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

MAX_WORDS = 40
TOLERANCE = Decimal("0.005")

# fmt: off
MONTHS = [
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
]
NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]
# fmt: on
UNITS = {
    "€": r"€|eur|euros?",
    "$": r"\$|usd|dollars?",
    "%": r"%|percent",
    "second": r"seconds?|secs?|s",
    "minute": r"minutes?|mins?",
    "hour": r"hours?|hrs?|h",
    "day": r"(?:(?:working|business|calendar)\ )?days?",
    "week": r"weeks?",
    "month": r"months?",
    "year": r"years?",
    "g": r"g|grams?",
    "kg": r"kgs?|kilos?|kilograms?",
    "l": r"l|lit(?:re|er)s?",
    "ml": r"ml|millilit(?:re|er)s?",
    "cm": r"cm|centimet(?:re|er)s?",
    "m": r"m|met(?:re|er)s?",
    "bar": r"bars?",
    "W": r"w|watts?",
    "dB": r"db|decibels?",
    "°C": r"°\ ?c|degrees\ celsius",
    "°dH": r"°\ ?dh",
}
_MONTH = "(?P<month{0}>" + "|".join(f"{month[:3]}(?:{month[3:]})?" for month in MONTHS) + r")\b\.?"
_UNIT = "|".join(f"(?P<u{index}>{pattern})" for index, pattern in enumerate(UNITS.values()))
_VALUE = re.compile(
    rf"""
    (?P<iso>\b\d{{4}}-\d\d-\d\d\b)
  | \b(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?\ (?:of\ )?{_MONTH.format(1)}(?:,?\ (?P<year1>\d{{4}})\b)?
  | \b{_MONTH.format(2)}\ (?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\ (?P<year2>\d{{4}})\b)?
  | \b(?P<hour1>\d{{1,2}}):(?P<minute>\d\d)(?:\ ?(?P<half1>[ap])\.?m\b)?
  | \b(?P<hour2>\d{{1,2}})\ ?(?P<half2>[ap])\.?m\b
  | \b(?!eur|usd)[a-z]+-?\d[\w-]*                                      # a code, such as e10 or m-1042: not a value
  | (?:(?P<currency>[€$]|eur|usd)\ ?)?
    (?P<number>(?<![\w.,])-?\d[\d.,]*|(?<=[x×*/+(=€$-])\d[\d.,]*|(?<=eur|usd)\d[\d.,]*)
    (?:[\ -]?(?:{_UNIT})(?!\w))?
    """,
    re.VERBOSE,
)
_RANGE = re.compile(r"\s*(?:to|and|or|-|–)\s*")
_RESULT = re.compile(r"=|≈|\b(?:total|sum|altogether|equals?|makes?|comes? to|so|thus|therefore|result|answer)\b")
_NEGATIONS = {"not", "never", "isnt", "wasnt", "hasnt", "arent", "cannot"}
_FILLERS = {"a", "an", "the"}


@dataclass(frozen=True)
class _Value:
    """A number with its unit, or a date or time of day in ISO form; ``start`` and ``end`` are its position."""

    amount: Decimal | str
    unit: str | None
    start: int
    end: int


def same_answer(gold: str, answer: str) -> bool:
    """Return whether ``answer`` matches the gold answer, by the rules in the module's docstring."""
    expected = _values(_normalize(gold))
    if expected:
        return _has_values(expected, _normalize(answer))
    words = _words(answer)
    return len(words) <= MAX_WORDS and all(_states(words, _words(part)) for part in re.split(r"\band\b|,", gold))


def _has_values(expected: list[_Value], answer: str) -> bool:
    unit = expected[-1].unit
    values = _values(answer) or _values(_digits_for_words(answer))
    values = [value for value in values if value.unit == unit] or [value for value in values if value.unit is None]
    if len(values) < len(expected):
        return False
    last = values[-len(expected) :]
    if not all(_equal(value, gold) for value, gold in zip(last, expected, strict=True)):
        return False
    others = values[: -len(expected)]
    if all(any(_equal(value, gold) for gold in expected) for value in others):
        return True
    return bool(_RESULT.search(answer[others[-1].end : last[0].start]))


def _values(text: str) -> list[_Value]:
    values = [value for match in _VALUE.finditer(text) if (value := _value(match))]
    for index in range(len(values) - 2, -1, -1):
        left, right = values[index], values[index + 1]
        if left.unit is None and right.unit and _RANGE.fullmatch(text[left.end : right.start]):
            values[index] = _Value(left.amount, right.unit, left.start, left.end)
    return values


def _value(match: re.Match[str]) -> _Value | None:
    groups = {name: text for name, text in match.groupdict().items() if text}
    start, end = match.span()
    if "iso" in groups:
        return _Value(groups["iso"], "date", start, end)
    for order in "12":
        if month := groups.get(f"month{order}"):
            number = 1 + [name[:3] for name in MONTHS].index(month[:3])
            year = groups.get(f"year{order}", "")
            date = f"{number:02}-{int(groups[f'day{order}']):02}"
            return _Value(f"{year}-{date}" if year else date, "date", start, end)
        if hour := groups.get(f"hour{order}"):
            half = groups.get(f"half{order}")
            hours = int(hour) % 12 + (12 if half == "p" else 0) if half else int(hour)
            return _Value(f"{hours:02}:{groups.get('minute', '00')}", "time", start, end)
    if "number" not in groups:
        return None
    unit = next((unit for index, unit in enumerate(UNITS) if f"u{index}" in groups), None)
    currency = groups.get("currency", "").replace("eur", "€").replace("usd", "$") or None
    return _Value(_decimal(groups["number"]), currency or unit, start, end)


def _decimal(text: str) -> Decimal:
    """Parse 1,130.00 and 1.130,00 as the same number; a single comma before one or two digits is a decimal comma."""
    text = text.rstrip(".,")
    if re.fullmatch(r"-?\d{1,3}(\.\d{3})*,\d{1,2}|-?\d+,\d{1,2}", text):
        text = text.replace(".", "").replace(",", ".")
    text = text.replace(",", "")
    whole, *rest = text.split(".")
    return Decimal(f"{whole}.{''.join(rest)}" if rest else whole)


def _equal(value: _Value, gold: _Value) -> bool:
    if isinstance(value.amount, Decimal) and isinstance(gold.amount, Decimal):
        return abs(value.amount - gold.amount) < TOLERANCE
    if value.unit == gold.unit == "date":
        longer, shorter = sorted((str(value.amount), str(gold.amount)), key=len, reverse=True)
        return longer.endswith(shorter)
    return value.amount == gold.amount


def _digits_for_words(text: str) -> str:
    return re.sub(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b", lambda match: str(NUMBER_WORDS.index(match[0])), text)


def _normalize(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold().replace("−", "-").replace("**", "")
    return re.sub(r"\s+", " ", text).strip()


def _words(text: str) -> list[str]:
    """Return the text's words, without articles, apostrophes and plural endings."""
    text = re.sub(r"['’‘]", "", _normalize(text))
    words = [word for word in re.findall(r"\w+", text) if word not in _FILLERS]
    return [word.removesuffix("s") if len(word) > 3 else word for word in words]


def _states(words: list[str], part: list[str]) -> bool:
    """Return whether ``words`` contains ``part``, neither negated nor as one of two alternatives."""
    size = len(part)
    for start in range(len(words) - size + 1):
        around = words[start - 1 : start] + words[start + size : start + size + 1]
        negated = _NEGATIONS.intersection(words[max(start - 3, 0) : start])
        if size and words[start : start + size] == part and not negated and "or" not in around:
            return True
    return False
