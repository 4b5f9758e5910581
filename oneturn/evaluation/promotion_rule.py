"""When a version may be promoted: the rule of ``gate`` in the configuration, applied to a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from oneturn.config import GateConfig
from oneturn.errors import DataError

_TOLERANCE = 1e-9
_NO_CATEGORY = "no category"
_DEFAULT_CATEGORY = GateConfig().category
_DISALLOWED_SPLITS = {
    "test": "test examples are reserved for the final measurement, and scores on them are biased upwards once they "
    "have been used to select a version",
    "train": "compiled prompts contain training examples as demos, so scores on them are biased upwards",
}


@dataclass(frozen=True)
class CategoryChange:
    """The mean scores of a category; ``judged`` is whether it has enough examples for the rule."""

    category: str
    rows: int
    champion: float
    challenger: float
    judged: bool

    @property
    def difference(self) -> float:
        """The challenger's score minus the champion's."""
        return self.challenger - self.champion


def check_split(split: str) -> None:
    """Raise ``DataError`` if versions can't be compared on a split: train or test."""
    if split in _DISALLOWED_SPLITS:
        raise DataError(f"Versions can't be compared on the {split} split: {_DISALLOWED_SPLITS[split]}. Use dev.")


def category_changes(
    labels: Sequence[str | None], before: Any, after: Any, rule: GateConfig
) -> Iterator[CategoryChange]:
    """Return the mean scores by category, before and after; categories that are too small to judge are one."""
    names = [_NO_CATEGORY if label is None else label for label in labels]
    frame = pd.DataFrame({"category": names, "champion": before, "challenger": after})
    small: list[str] = []
    for category, rows in frame.groupby("category", sort=False):
        if len(rows) < rule.min_category_examples:
            small.append(str(category))
        else:
            yield _category(str(category), rows, judged=True)
    if small:
        rows = frame[frame["category"].isin(small)]
        yield _category(", ".join(small), rows, judged=len(rows) >= rule.min_category_examples)


def _category(name: str, rows: pd.DataFrame, judged: bool) -> CategoryChange:
    return CategoryChange(name, len(rows), float(rows["champion"].mean()), float(rows["challenger"].mean()), judged)


def failed_conditions(
    low: float,
    rows: int,
    categories: Sequence[CategoryChange],
    rule: GateConfig,
    failed: Sequence[tuple[str, float]],
    lacking: Sequence[str],
) -> Iterator[str]:
    """Return why a version may not be promoted, one sentence for each condition that doesn't hold.

    Args:
        low: lower bound of the difference, -1 to 1.
        rows: the number of examples.
        categories: mean scores by category.
        rule: the rule.
        failed: the share of failed rows of each version, by name.
        lacking: the versions whose rows lack the category's label.
    """
    for name, share in failed:
        if share > rule.max_failed_rows + _TOLERANCE:
            yield f"{share:.1%} of the rows of {name} failed; the rule allows {rule.max_failed_rows:.1%}. Run it again."
    if rows < rule.min_examples:
        yield f"There are {rows} examples; the rule requires at least {rule.min_examples}."
    if not low > rule.min_difference + _TOLERANCE:
        yield f"The lower bound of the difference is {low:+.1%}; the rule requires over {rule.min_difference:+.1%}."
    if lacking and rule.category != _DEFAULT_CATEGORY:
        yield (
            f"No row of {' and of '.join(lacking)} has the label {rule.category!r}, which gate.category names: "
            "add it to the examples, or name one that they have."
        )
    for change in categories:
        if change.judged and -change.difference > rule.max_category_loss + _TOLERANCE:
            yield (
                f"{change.category} loses {-change.difference:.1%} ({change.champion:.1%} to {change.challenger:.1%}, "
                f"{change.rows} examples); the rule allows {rule.max_category_loss:.1%}."
            )
