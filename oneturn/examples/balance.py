"""How often each label occurs in each split, and whether the splits are alike in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency, random_table

from oneturn.examples.files import Row, alternatives, types
from oneturn.examples.findings import Finding, Severity

_EXPECTED = 5
_DRAWS = 1999
_UNLIKELY = 0.01  # the splits differ more than one draw in a hundred from one source would


@dataclass(frozen=True)
class Balance:
    """How often each value of a field occurs.

    Attributes:
        field: the field's name.
        counts: rows by value, then by split.
    """

    field: str
    counts: Mapping[str, Mapping[str, int]]

    def share(self, value: str, split: str) -> float:
        """The part of a split's rows that has the value, 0 to 1."""
        rows = sum(counts.get(split, 0) for counts in self.counts.values())
        return self.counts[value].get(split, 0) / rows if rows else 0.0


def label_fields(rows: Sequence[Row], schema: Mapping[str, Any] | None) -> list[str]:
    """The fields that sort rows into kinds: those of few values by the schema, else ``category`` and true-or-false."""
    if schema is not None:
        return [name for name in schema.get("properties", {}) if _sorts(schema, name)]
    names = dict.fromkeys(name for row in rows for name in row.values)
    return [name for name in names if name == "category" or _is_boolean(rows, name)]


def balances(rows: Sequence[Row], fields: Sequence[str]) -> list[Balance]:
    """Count each of ``fields``."""
    found = []
    for field in fields:
        counts: dict[str, Counter[str]] = {}
        for row in rows:
            if row.values.get(field) is not None:
                counts.setdefault(_told(row.values[field]), Counter())[row.split] += 1
        if counts:
            found.append(Balance(field, dict(sorted(counts.items()))))
    return found


def imbalances(balance: Balance, splits: Sequence[str]) -> Iterator[Finding]:
    """Warn of values that training never sees, and of splits that differ more than chance explains."""
    for value, counts in balance.counts.items():
        if "train" in splits and not counts.get("train"):
            elsewhere = ", ".join(split for split in splits if counts.get(split))
            message = f"{balance.field} {value!r} occurs in {elsewhere} and never in train."
            yield _warning(balance, message, "Add such rows to train.", value)
    table = [[counts.get(split, 0) for split in splits] for counts in balance.counts.values()]
    if len(table) < 2 or len(splits) < 2 or not all(map(sum, zip(*table, strict=True))):
        return
    if (chance := _chance(np.array(table))) < _UNLIKELY:
        message = f"the splits differ in {balance.field} (chi-squared test, p = {chance:.1g})."
        yield _warning(balance, message, "Mix the splits alike, or scores on one say little about another.")


def _chance(table: Any) -> float:
    """How often splits drawn from one source differ as much.

    Where fewer than five rows are expected somewhere, the chi-squared distribution tells too little (W. G. Cochran,
    "Some methods for strengthening the common chi-squared tests", 1954): then such splits are drawn.
    """
    told = chi2_contingency(table, correction=False)
    if told.expected_freq.min() >= _EXPECTED:
        return float(told.pvalue)
    drawn = random_table(table.sum(axis=1), table.sum(axis=0), seed=0).rvs(_DRAWS)
    differences = ((drawn - told.expected_freq) ** 2 / told.expected_freq).sum(axis=(1, 2))
    return float((1 + (differences >= told.statistic - 1e-9).sum()) / (1 + _DRAWS))


def _sorts(schema: Mapping[str, Any], name: str) -> bool:
    return any("enum" in option or types(option) == ["boolean"] for option in alternatives(schema, name))


def _is_boolean(rows: Sequence[Row], name: str) -> bool:
    return all(isinstance(row.values[name], bool) for row in rows if row.values.get(name) is not None)


def _told(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _warning(balance: Balance, message: str, fix: str, value: Any = None) -> Finding:
    return Finding(Severity.warning, "balance", message, fix, field=balance.field, value=value)
