"""Compare two evaluations of the same examples with a paired test; see ``promotion_rule.py`` for the rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from oneturn.config import GateConfig
from oneturn.errors import DataError, OneTurnError
from oneturn.evaluation.promotion_rule import CategoryChange, category_changes, failed_conditions
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval_to_decide_by

if TYPE_CHECKING:
    from rich.console import RenderableType


_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Flip:
    """An example with different scores for champion and challenger; scores are 0 to 1."""

    example: str
    category: str | None
    champion: float
    challenger: float

    @property
    def difference(self) -> float:
        """The challenger's score minus the champion's."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class GateResult:
    """The result of a comparison, and whether the rule holds.

    Attributes:
        champion: the champion's name.
        challenger: the challenger's name.
        champion_score: the champion's mean score, 0 to 1.
        challenger_score: the challenger's mean score, 0 to 1.
        difference: the mean of the paired differences.
        low: lower bound of its 95% interval (paired percentile bootstrap; SciPy, deterministic).
        high: upper bound of the interval.
        rows: the number of examples.
        errors: the number of failed examples of the champion and of the challenger.
        better: examples with a higher score for the challenger, the greatest gain first.
        worse: examples with a lower score for the challenger, the greatest loss first.
        categories: mean scores by category; small categories are merged into one.
        reasons: why the rule doesn't hold, one sentence each; empty if it holds.
    """

    champion: str
    challenger: str
    champion_score: float
    challenger_score: float
    difference: float
    low: float
    high: float
    rows: int
    errors: tuple[int, int]
    better: tuple[Flip, ...]
    worse: tuple[Flip, ...]
    categories: tuple[CategoryChange, ...]
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the rule holds, so that the challenger can replace the champion."""
        return not self.reasons

    @property
    def verdict(self) -> str:
        """The result in one line."""
        interval = f"95% interval {self.low:+.1%} to {self.high:+.1%}, {self.rows} examples"
        outcome = "The rule holds" if self.passed else "The rule doesn't hold"
        return f"{outcome}: {self.challenger} differs from {self.champion} by {self.difference:+.1%} ({interval})."

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"passed": self.passed, **asdict(self)}

    def to_json(self) -> str:
        """As JSON; an undefined bound is null."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in self.to_dict().items()}
        return json.dumps(plain, indent=2, ensure_ascii=False)

    def to_markdown(self) -> str:
        """As a Markdown report."""

        return markdown(self)

    def __rich__(self) -> RenderableType:
        """As tables for a terminal."""

        return tables(self)


def compare(
    champion: Evaluation,
    challenger: Evaluation,
    rule: GateConfig | None = None,
    *,
    names: tuple[str, str] = ("champion", "challenger"),
) -> GateResult:
    """Compare two evaluations of the same examples with a paired test, and apply the rule.

    The default rule: the lower bound of the difference's 95% interval is above zero, no category loses more than 0.10,
    and at most 10% of each side's rows failed. Categories with fewer than five examples are merged into one; if the
    merged category still has fewer than five, it is shown but not judged. Examples without a category are one of their
    own, "no category", unless no example has one. If the rule names another label than ``category``, both evaluations
    must have it.

    Examples are matched by their ``id`` if they have one, else by their order. Repeats are averaged first.

    Args:
        champion: the evaluation of the current version.
        challenger: the evaluation of the candidate.
        rule: the configured rule; ``None`` for the default.
        names: the names of champion and challenger in the report.

    Raises:
        DataError: the examples aren't the same.
        OneTurnError: every example of one side failed.
    """
    rule = rule or GateConfig()
    failed = list(zip(names, (_failed_share(side) for side in (champion, challenger)), strict=True))
    champion, challenger = (
        champion.by_example(),
        _align(champion.by_example(), challenger.by_example(), names),
    )
    _check(champion, challenger, names)
    before, after = (side.rows["score"].to_numpy(dtype=float) for side in (champion, challenger))
    differences = after - before
    low, high = interval_to_decide_by(differences)
    labels = _labels(champion, challenger, rule.category)
    flips = list(_flips(challenger.rows, labels, before, after))
    categories = tuple(category_changes(labels, before, after, rule)) if labels is not None else ()
    lacking = [name for name, side in zip(names, (champion, challenger), strict=True) if not _has(side, rule.category)]
    return GateResult(
        champion=names[0],
        challenger=names[1],
        champion_score=float(before.mean()),
        challenger_score=float(after.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        rows=len(differences),
        errors=(_errors(champion), _errors(challenger)),
        better=tuple(sorted((flip for flip in flips if flip.difference > 0), key=lambda flip: -flip.difference)),
        worse=tuple(sorted((flip for flip in flips if flip.difference < 0), key=lambda flip: flip.difference)),
        categories=categories,
        reasons=tuple(failed_conditions(low, len(differences), categories, rule, failed, lacking)),
    )


def _align(champion: Evaluation, challenger: Evaluation, names: tuple[str, str]) -> Evaluation:
    """The challenger's rows in the order of the champion's, matched by id if both have unique ids."""
    if any("id" not in side.rows or side.rows["id"].duplicated().any() for side in (champion, challenger)):
        return challenger
    ids, others = (side.rows["id"].astype(str).tolist() for side in (champion, challenger))
    for name, own, missing in ((names[0], ids, set(others) - set(ids)), (names[1], others, set(ids) - set(others))):
        if missing:
            examples = ", ".join([*sorted(missing)[:5], *(["…"] if len(missing) > 5 else [])])
            raise DataError(
                f"{name} has {len(own)} examples and lacks {len(missing)} of the other evaluation ({examples}): "
                "evaluate both on the same examples."
            )
    if ids == others:
        return challenger
    return Evaluation(challenger.rows.set_index(challenger.rows["id"].astype(str)).loc[ids].reset_index(drop=True))


def _check(champion: Evaluation, challenger: Evaluation, names: tuple[str, str]) -> None:
    if not len(champion.rows) + len(challenger.rows):
        raise DataError("There are no examples to compare.")
    if len(champion.rows) != len(challenger.rows):
        raise DataError(
            f"{names[0]} has {len(champion.rows)} examples, {names[1]} has {len(challenger.rows)}: "
            "evaluate both on the same examples."
        )
    labels = [name for name in champion.labels if name in challenger.labels]
    for index, (first, second) in enumerate(
        zip(champion.rows[labels].to_dict("records"), challenger.rows[labels].to_dict("records"), strict=True)
    ):
        if list(map(_plain, first.values())) != list(map(_plain, second.values())):
            raise DataError(
                f"Example {index + 1} differs between {names[0]} and {names[1]}: evaluate both on the same examples."
            )
    for name, side in zip(names, (champion, challenger), strict=True):
        if _errors(side) == len(side.rows):
            reason = side.rows["error"].iloc[0]
            raise OneTurnError(
                f"{name} has no scores: all of its {len(side.rows)} examples failed. First error: {reason}"
            )
        for example, score in zip(_example_names(side.rows), side.rows["score"], strict=True):
            if not math.isfinite(score):
                raise DataError(f"The metric gave {example} of {name} the score {score}, which isn't a finite number.")


def _plain(value: Any) -> str | None:
    """A label in comparable form: files may store lists as text, and integers as text or floats."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _has(evaluation: Evaluation, label: str) -> bool:
    return label in evaluation.rows and bool(evaluation.rows[label].notna().any())


def _labels(champion: Evaluation, challenger: Evaluation, label: str) -> list[str | None] | None:
    """The label of each example, from the side that has it; ``None`` if no example has one."""
    for side in (challenger, champion):
        if _has(side, label):
            return list(map(_plain, side.rows[label]))
    return None


def _errors(evaluation: Evaluation) -> int:
    return int(evaluation.rows["error"].notna().sum())


def _failed_share(evaluation: Evaluation) -> float:
    """The share of failed rows, repeats counted one by one."""
    return float(evaluation.rows["error"].notna().mean()) if len(evaluation.rows) else 0.0


def _flips(rows: pd.DataFrame, labels: Sequence[str | None] | None, before: Any, after: Any) -> Iterator[Flip]:
    names = _example_names(rows)
    for index in np.flatnonzero(np.abs(after - before) > _TOLERANCE).tolist():
        category = labels[index] if labels is not None else None
        yield Flip(names[index], category, float(before[index]), float(after[index]))


def _example_names(rows: pd.DataFrame) -> list[str]:
    """The names of the examples: their ids, else their first labels."""
    names = rows["id"] if "id" in rows else rows[next(iter(Evaluation(rows).labels), "score")]
    return list(map(str, names))


SHOWN = 20
"""The maximum number of listed examples per section."""

_SCORES = ("", "rows", "before", "after", "difference")
_FLIPS = ("example", "category", "before", "after")


def markdown(result: GateResult) -> str:
    """The report as Markdown."""
    parts = [f"# {_cell(result.challenger)} against {_cell(result.champion)}", _cell(result.verdict)]
    if result.reasons:
        parts.append("\n".join(f"- {_cell(reason)}" for reason in result.reasons))
    parts.append(_table(_SCORES, _scores(result)))
    for title, flips in _flip_sections(result):
        parts += [f"## {title}", _table(_FLIPS, _rows(flips))]
        if len(flips) > SHOWN:
            parts.append(f"and {len(flips) - SHOWN} more.")
    return "\n\n".join([*parts, *_notes(result)]) + "\n"


def tables(result: GateResult) -> Group:
    """The report as tables for a terminal."""
    parts: list[Table | str] = [f"[{'green' if result.passed else 'red'}]{escape(result.verdict)}[/]"]
    parts += [f"  - {escape(reason)}" for reason in result.reasons]
    parts.append(_rich(_SCORES, _scores(result)))
    for title, flips in _flip_sections(result):
        hidden = f" ({len(flips) - SHOWN} more aren't shown)" if len(flips) > SHOWN else ""
        parts += [title + hidden, _rich(_FLIPS, _rows(flips))]
    return Group(*parts, *_notes(result))


def _flip_sections(result: GateResult) -> Iterator[tuple[str, Sequence[Flip]]]:
    kinds = (("worse", result.worse), ("better", result.better))
    return ((f"{len(flips)} examples are {word}", flips) for word, flips in kinds if flips)


def _scores(result: GateResult) -> Iterator[list[str]]:
    interval = f"{result.difference:+.1%} ({result.low:+.1%} to {result.high:+.1%})"
    yield ["all", str(result.rows), f"{result.champion_score:.1%}", f"{result.challenger_score:.1%}", interval]
    for change in result.categories:
        yield [
            _name(change),
            str(change.rows),
            f"{change.champion:.1%}",
            f"{change.challenger:.1%}",
            f"{change.difference:+.1%}",
        ]


def _name(change: CategoryChange) -> str:
    return change.category if change.judged else f"{change.category} (too few to judge)"


def _rows(flips: Sequence[Flip]) -> Iterator[list[str]]:
    for flip in flips[:SHOWN]:
        yield [_short(flip.example), flip.category or "", f"{flip.champion:.2f}", f"{flip.challenger:.2f}"]


def _notes(result: GateResult) -> Iterator[str]:
    for name, errors in zip((result.champion, result.challenger), result.errors, strict=True):
        if errors:
            yield f"{errors} of {result.rows} examples failed for {name}; each counts as 0."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:89] + "…"


def _table(headers: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rich(headers: Sequence[str], rows: Iterator[list[str]]) -> Table:
    table = Table(*headers)
    table.columns[0].overflow = "fold"  # an id is never cut
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table
