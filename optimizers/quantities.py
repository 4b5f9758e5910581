"""Find the quantities of a text: numbers with their units, dates, and times of day.

Equal forms give equal quantities: "€55.50" and "55.5 EUR", "17 June 2025" and "17.06.2025", "13:00" and "1 pm". Numbers
in words, such as "two" and "one and a half hours", are found after ``write_digits``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

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
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on
UNITS = {
    "cent": r"cents?",
    "€": r"€|eur|euros?",
    "$": r"\$|usd|dollars?",
    "%": r"%|per\ ?cent",
    "second": r"seconds?|secs?|s",
    "minute": r"minutes?|mins?",
    "hour": r"hours?|hrs?|h",
    "working day": r"(?:working|business)\ days?",
    "day": r"(?:calendar\ )?days?",
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
    "kW": r"kw|kilowatts?",
    "dB": r"db|decibels?",
    "°C": r"°\ ?c|degrees?\ (?:celsius|centigrade|c)",
    "°dH": r"°\ ?dh",
}
SCALES = {
    "second": ("duration", Decimal(1)),
    "minute": ("duration", Decimal(60)),
    "hour": ("duration", Decimal(60 * 60)),
    "day": ("duration", Decimal(24 * 60 * 60)),
    "week": ("duration", Decimal(7 * 24 * 60 * 60)),
    "month": ("months", Decimal(1)),
    "year": ("months", Decimal(12)),
    "g": ("mass", Decimal(1)),
    "kg": ("mass", Decimal(1000)),
    "ml": ("volume", Decimal(1)),
    "l": ("volume", Decimal(1000)),
    "cm": ("length", Decimal(1)),
    "m": ("length", Decimal(100)),
    "W": ("power", Decimal(1)),
    "kW": ("power", Decimal(1000)),
    "cent": ("euros", Decimal(1)),
    "€": ("euros", Decimal(100)),
}
"""What a unit measures, and its size. Days are no working days, and months have no fixed number of days."""

_MONTH_NAMES = "|".join(f"{month[:3]}(?:{month[3:]})?" for month in MONTHS).replace("(?:tem", "(?:t|tem")  # also sept
_MONTH = rf"(?P<month{{0}}>{_MONTH_NAMES})\b\.?"
_UNIT = "|".join(f"(?P<u{index}>{pattern})" for index, pattern in enumerate(UNITS.values()))
_QUANTITY = re.compile(
    rf"""
    (?P<iso>\b\d{{4}}-\d\d-\d\d\b)
  | \b(?P<first>\d{{1,2}})(?P<separator>[./])(?P<second>\d{{1,2}})(?P=separator)(?P<year3>\d{{4}})\b
  | \b(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?\ (?:of\ )?{_MONTH.format(1)}(?:,?\ (?P<year1>\d{{4}})\b)?
  | \b{_MONTH.format(2)}\ (?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\ (?P<year2>\d{{4}})\b)?
  | \b(?P<hour1>\d{{1,2}}):(?P<minute>\d\d)(?:\ ?(?P<half1>[ap])\.?m\b)?
  | \b(?P<hour2>\d{{1,2}})\ ?(?P<half2>[ap])\.?m\b
  | \b(?!eur|usd)[a-z]+-?\d[\w-]*                                      # a code, such as e10 or m-1042: no quantity
  | (?:(?P<currency>[€$]|eur|usd)\ ?)?
    (?P<number>(?<![\w.,])-?\d[\d.,]*|(?<=[x×*/+(=€$-])\d[\d.,]*|(?<=eur|usd)\d[\d.,]*)
    (?:[\ -]?(?:{_UNIT})(?!\w))?
    """,
    re.VERBOSE,
)
_CENTS = re.compile(r"\b(\d+) (?:euros?|eur)(?: and)? (\d{1,2}) cents?\b")
_RANGE = re.compile(r"\s*(?:to|and|or|-|–)\s*")


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, or a date or time of day in ISO form; ``start`` and ``end`` are its position."""

    amount: Decimal | str
    unit: str | None
    start: int
    end: int

    def has_unit(self, unit: str | None) -> bool:
        """Whether this is the quantity's unit; "3 days" may mean working days."""
        days = {"day", "working day"}
        return self.unit == unit or {self.unit, unit} <= days

    def measures_like(self, unit: str | None) -> bool:
        """Whether the quantity can be converted to the unit."""
        return unit in SCALES and self.unit in SCALES and SCALES[unit][0] == SCALES[self.unit][0]

    def equals(self, gold: Quantity) -> bool:
        """Whether the amounts are equal: converted, if the units differ; a date without a year fits any year."""
        if isinstance(self.amount, Decimal) and isinstance(gold.amount, Decimal):
            if self.has_unit(gold.unit) or not self.measures_like(gold.unit):
                return abs(self.amount - gold.amount) < TOLERANCE
            mine, theirs = SCALES[str(self.unit)][1], SCALES[str(gold.unit)][1]
            return abs(self.amount * mine - gold.amount * theirs) < TOLERANCE * min(mine, theirs)
        if self.unit == gold.unit == "date":
            longer, shorter = sorted((str(self.amount), str(gold.amount)), key=len, reverse=True)
            return longer.endswith(shorter)
        return self.amount == gold.amount


def normalize(text: str) -> str:
    """Return the text in lower case, with plain spaces, without bold marks, and with one spelling of equal signs."""
    text = re.sub(r"(\d) ?½", r"\1.5", text).replace("½", "half")
    text = unicodedata.normalize("NFKC", text).casefold().replace("−", "-").replace("**", "").replace("&", " and ")
    text = re.sub(r"\s+", " ", text).strip()
    return _CENTS.sub(lambda match: f"{match[1]}.{int(match[2]):02} euros", text)


def quantities(text: str) -> list[Quantity]:
    """Return the quantities of a normalized text, in order. In "3 to 5 days", both are days; in "9 to 17:30", times."""
    found = [quantity for match in _QUANTITY.finditer(text) if (quantity := _quantity(match))]
    for index in range(len(found) - 2, -1, -1):
        left, right = found[index], found[index + 1]
        if left.unit is None and right.unit and _RANGE.fullmatch(text[left.end : right.start]):
            amount = f"{left.amount:0>2}:00" if right.unit == "time" else left.amount
            found[index] = Quantity(amount, right.unit, left.start, left.end)
    return found


def _quantity(match: re.Match[str]) -> Quantity | None:
    groups = {name: text for name, text in match.groupdict().items() if text}
    start, end = match.span()
    if "iso" in groups:
        return Quantity(groups["iso"], "date", start, end)
    if "year3" in groups:
        date = _numeric_date(int(groups["first"]), int(groups["second"]), groups["separator"])
        return Quantity(f"{groups['year3']}-{date}", "date", start, end) if date else None
    for order in "12":
        if month := groups.get(f"month{order}"):
            number = 1 + [name[:3] for name in MONTHS].index(month[:3])
            year = groups.get(f"year{order}", "")
            date = f"{number:02}-{int(groups[f'day{order}']):02}"
            return Quantity(f"{year}-{date}" if year else date, "date", start, end)
        if hour := groups.get(f"hour{order}"):
            half = groups.get(f"half{order}")
            hours = int(hour) % 12 + (12 if half == "p" else 0) if half else int(hour)
            return Quantity(f"{hours:02}:{groups.get('minute', '00')}", "time", start, end)
    if "number" not in groups:
        return None
    unit = next((unit for index, unit in enumerate(UNITS) if f"u{index}" in groups), None)
    currency = groups.get("currency", "").replace("eur", "€").replace("usd", "$") or None
    return Quantity(_decimal(groups["number"]), currency or unit, start, end)


def _numeric_date(first: int, second: int, separator: str) -> str | None:
    """Return month and day of 17.06. or 17/06 or 06/17; ``None`` for 05/06, which may be either."""
    if separator == "/" and first != second and max(first, second) <= 12:
        return None
    day, month = (second, first) if separator == "/" and second > 12 else (first, second)
    return f"{month:02}-{day:02}"


def _decimal(text: str) -> Decimal:
    """Parse 1,130.00 and 1.130,00 as the same number; a single comma before one or two digits is a decimal comma."""
    text = text.rstrip(".,")
    if re.fullmatch(r"-?\d{1,3}(\.\d{3})*,\d{1,2}|-?\d+,\d{1,2}", text):
        text = text.replace(".", "").replace(",", ".")
    text = text.replace(",", "")
    whole, *rest = text.split(".")
    return Decimal(f"{whole}.{''.join(rest)}" if rest else whole)


_WORD = re.compile(rf"\b(?:({'|'.join(_TENS)})(?:[- ]({'|'.join(NUMBER_WORDS[1:10])}))?|({'|'.join(NUMBER_WORDS)}))\b")
_PERIOD = r"(?:minute|hour|day|week|month|year)"
_SPELLINGS = [
    (r"\bnoon\b", "12:00"),
    (r"\bmidnight\b", "00:00"),
    (r"\b(\d{1,2}) o['’]?clock\b", r"\1:00"),
    (r"\b(\d+) and a half\b", r"\1.5"),
    (r"\b(\d+) 1[/⁄]2\b", r"\1.5"),
    (rf"\ban? ({_PERIOD}) and a half\b", r"1.5 \1"),
    (rf"\bhalf (?:of )?an? ({_PERIOD})\b", r"0.5 \1"),
    (rf"\bhalf[- ]({_PERIOD})\b", r"0.5 \1"),
    (r"\b(?:an?|1) quarter of an hour\b", "15 minutes"),
    (r"\b3 quarters of an hour\b", "45 minutes"),
    (r"\b(?:an?|1) quarter\b", "25%"),
    (r"\b(?:(?:an?|1) )?half\b", "50%"),
    (r"\b3 quarters\b", "75%"),
]


def write_digits(text: str) -> str:
    """Return a normalized text with its numbers in words written in digits: "half an hour" becomes "0.5 hour"."""
    text = _WORD.sub(_number, text)
    for pattern, digits in _SPELLINGS:
        text = re.sub(pattern, digits, text)
    return text


def _number(match: re.Match[str]) -> str:
    tens, ones, word = match.groups()
    if word or not tens:
        return str(NUMBER_WORDS.index(word))
    return str(20 + 10 * _TENS.index(tens) + (NUMBER_WORDS.index(ones) if ones else 0))
