"""Take out of a text what says who somebody is, or opens a door: by rule, each with a name in its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oneturn.core.secrets import IN_PROSE

_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_GAP = "[ \u00a0\u202f-]"  # between groups of digits; pages put spaces there that don't break
# What follows may look like more of it ("4111 1111 1111 1111 12/27"): the longest part that holds is taken.
_IBAN = re.compile(rf"\b[A-Z]{{2}}\d{{2}}(?:{_GAP}?[A-Z0-9]{{4}}){{2,7}}(?:{_GAP}?[A-Z0-9]{{1,4}})?\b", re.IGNORECASE)
_CARD = re.compile(rf"(?<![\w-])\d(?:{_GAP}?\d){{12,}}(?![\w-])")
_CARD_GROUPS = re.compile(
    rf"\d{{13,19}}|\d{{4}}(?:{_GAP}\d{{4}}){{2,3}}(?:{_GAP}\d{{1,4}})?|\d{{4}}{_GAP}\d{{6}}{_GAP}\d{{4,5}}"
)
_MOST_GROUPS = 9  # of the longest IBAN
_DATE = rf"(?!\d\d{_GAP}\d\d{_GAP}(?:19|20)\d\d(?!\d))"
_PHONE = re.compile(
    rf"""(?<![\w-])(?:
        (?:\+|00)\d{{1,3}}[\d\u00a0\u202f ()/.-]{{6,16}}\d
        |{_DATE}0\d{{1,4}}(?:{_GAP}|/)\d(?:\d|{_GAP}){{4,10}}\d
        |\(0\d{{1,4}}\){_GAP}?\d(?:\d|{_GAP}){{4,10}}\d
        |0\d(?:\.\d\d){{4}}
        |(?:1[ .-])?(?:\([2-9]\d\d\){_GAP}?|[2-9]\d\d[ .-])\d{{3}}[ .-]\d{{4}}
    )(?![\w-])""",
    re.VERBOSE,
)


class Redaction:
    """Rules for mail addresses, numbers of accounts, cards and phones, and secrets, and rules of one's own.

    An account's or a card's number must have the right check digits (ISO 13616; ISO/IEC 7812), so that an order's
    number isn't taken for one.

    Args:
        own: regular expressions by the names that stand in their places.

    Attributes:
        counts: how often each rule was applied.
    """

    def __init__(self, own: Mapping[str, str] | None = None):
        self.counts: Counter[str] = Counter()
        self._own = {name: re.compile(pattern) for name, pattern in (own or {}).items()}

    def apply(self, value: Any) -> Any:
        """The value with ``[name]`` for what is taken out of its texts, in mappings and lists too."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {name: self.apply(inner) for name, inner in value.items()}
        return [self.apply(inner) for inner in value] if isinstance(value, list) else value

    def _text(self, text: str) -> str:
        for name, pattern in self._own.items():
            text = self._replaced(name, pattern, text)
        text = self._replaced("secret", IN_PROSE, text)
        text = self._replaced("email", _MAIL, text)
        text = self._replaced("iban", _IBAN, text, _is_iban)
        text = self._replaced("card", _CARD, text, _is_card)
        return self._replaced("phone", _PHONE, text)

    def _replaced(
        self, name: str, pattern: re.Pattern[str], text: str, holds: Callable[[str], bool] | None = None
    ) -> str:
        def told(match: re.Match[str]) -> str:
            stretches = _stretches(match[0]) if holds else [(0, len(match[0]))]
            parts, at = [], 0
            for start, end in stretches:
                if at <= start < end and (holds is None or holds(match[0][start:end])):
                    parts += [match[0][at:start], f"[{name}]"]
                    at = end
                    self.counts[name] += 1
            return "".join([*parts, match[0][at:]])

        return pattern.sub(told, text)


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    """The places of each run of groups of digits in a text, from the left, the longest first."""
    groups = [match.span() for match in re.finditer(r"[^\W_]+", text)]
    for first, (start, _) in enumerate(groups):
        for _, end in reversed(groups[first : first + _MOST_GROUPS]):
            yield start, end


def _is_iban(text: str) -> bool:
    plain = re.sub(_GAP, "", text)
    if not 15 <= len(plain) <= 34 or not re.match(r"[A-Za-z]{2}\d\d", plain):
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Thirteen to nineteen digits, grouped as on a card, the last of them Luhn's check digit."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return bool(_CARD_GROUPS.fullmatch(text)) and 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0
