"""Take out of a text what says who somebody is, or opens a door: by rule, each with a name in its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from oneturn.secrets import IN_PROSE

_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_CARD = re.compile(r"(?<![\w-])(?:\d[ -]?){12,18}\d(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w-])(?:\+|00)\d{1,3}[\d ()/.-]{6,16}\d(?![\w-])|(?<![\w-])0\d{1,4}[ /-]\d[\d -]{4,10}\d(?![\w-])"
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

    def _replaced(self, name: str, pattern: re.Pattern[str], text: str, holds: Any = None) -> str:
        def told(match: re.Match[str]) -> str:
            if holds is not None and not holds(match[0]):
                return match[0]
            self.counts[name] += 1
            return f"[{name}]"

        return pattern.sub(told, text)


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Luhn's check digit."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
