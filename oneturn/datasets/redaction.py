"""Redact personal data and credentials; each match becomes ``[name]``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oneturn.core.secrets import UNCERTAIN, find_secrets, is_like_a_key, is_secret_name, redact

_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_GAP = "[ \u00a0\u202f-]"  # between groups of digits; web pages use non-breaking spaces
# The text after a number may look like a part of it ("4111 1111 1111 1111 12/27"): the longest valid part matches.
_IBAN = re.compile(rf"\b[A-Z]{{2}}\d{{2}}(?:{_GAP}?[A-Z0-9]{{4}}){{2,7}}(?:{_GAP}?[A-Z0-9]{{1,4}})?\b", re.IGNORECASE)
_CARD = re.compile(rf"(?<![\w-])\d(?:{_GAP}?\d){{12,}}(?![\w-])")
_CARD_GROUPS = re.compile(
    rf"\d{{13,19}}|\d{{4}}(?:{_GAP}\d{{4}}){{2,3}}(?:{_GAP}\d{{1,4}})?|\d{{4}}{_GAP}\d{{6}}{_GAP}\d{{4,5}}"
)
_MAX_GROUPS = 9  # of the longest IBAN
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
    """Built-in rules for email addresses, IBANs, card and phone numbers and secrets, plus custom rules.

    IBANs and card numbers match only with valid check digits (ISO 13616; ISO/IEC 7812), so that order numbers are kept.

    Args:
        own: regular expressions of custom rules, by the name that replaces a match.

    Attributes:
        counts: number of matches per rule.
    """

    def __init__(self, own: Mapping[str, str] | None = None):
        self.counts: Counter[str] = Counter()
        self._own = {name: re.compile(pattern) for name, pattern in (own or {}).items()}

    def apply(self, value: Any) -> Any:
        """Return the value with each match replaced by ``[name]``, in nested mappings and lists too."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {name: self._named(str(name), inner) for name, inner in value.items()}
        return [self.apply(inner) for inner in value] if isinstance(value, list) else value

    def _named(self, name: str, value: Any) -> Any:
        if is_secret_name(name) and isinstance(value, str) and is_like_a_key(value):
            self.counts["secret"] += 1
            return "[secret]"
        return self.apply(value)

    def _text(self, text: str) -> str:
        for name, pattern in self._own.items():
            text = self._replace(name, pattern, text)
        # Questions and answers are prose: words that only may be secrets stay.
        if secrets := find_secrets(text, without=UNCERTAIN):
            self.counts["secret"] += len(secrets)
            text = redact(text, "[secret]", without=UNCERTAIN)
        text = self._replace("email", _MAIL, text)
        text = self._replace("iban", _IBAN, text, _is_iban)
        text = self._replace("card", _CARD, text, _is_card)
        return self._replace("phone", _PHONE, text)

    def _replace(
        self, name: str, pattern: re.Pattern[str], text: str, is_valid: Callable[[str], bool] | None = None
    ) -> str:
        def replacement(match: re.Match[str]) -> str:
            spans = _group_spans(match[0]) if is_valid else [(0, len(match[0]))]
            parts, position = [], 0
            for start, end in spans:
                if position <= start < end and (is_valid is None or is_valid(match[0][start:end])):
                    parts += [match[0][position:start], f"[{name}]"]
                    position = end
                    self.counts[name] += 1
            return "".join([*parts, match[0][position:]])

        return pattern.sub(replacement, text)


def _group_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of consecutive groups of letters and digits, from the left, longest first."""
    groups = [match.span() for match in re.finditer(r"[^\W_]+", text)]
    for first, (start, _) in enumerate(groups):
        for _, end in reversed(groups[first : first + _MAX_GROUPS]):
            yield start, end


def _is_iban(text: str) -> bool:
    plain = re.sub(_GAP, "", text)
    if not 15 <= len(plain) <= 34 or not re.match(r"[A-Za-z]{2}\d\d", plain):
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Return whether the text has 13 to 19 digits, grouped as on a card, with a valid Luhn check digit."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return bool(_CARD_GROUPS.fullmatch(text)) and 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0
