"""Whether a challenger may take the champion's place: both on the same examples, pair by pair."""

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
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval_to_decide_by

if TYPE_CHECKING:
    from rich.console import RenderableType


_EQUAL = 1e-9
_CLOSED = {
    "test": "test examples are for the last measurement alone: a version that was chosen by them was tuned on them, "
    "and what they then say of it is too good",
    "train": "the demos of compiled prompts are training examples, which a program gets right because it has seen them",
}


@dataclass(frozen=True)
class Flip:
    """An example that one program does better than the other; scores are 0 to 1."""

    example: str
    category: str | None
    champion: float
    challenger: float

    @property
    def difference(self) -> float:
        """The challenger's score minus the champion's."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class CategoryChange:
    """The mean scores of a category; ``judged`` says whether it has enough examples to be judged by."""

    category: str
    rows: int
    champion: float
    challenger: float
    judged: bool

    @property
    def difference(self) -> float:
        """The challenger's score minus the champion's."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class GateResult:
    """What the comparison found, and whether the rule holds.

    Attributes:
        champion: what the champion is called.
        challenger: what the challenger is called.
        champion_score: its mean score, 0 to 1.
        challenger_score: its mean score, 0 to 1.
        difference: the mean of the differences, pair by pair.
        low: lower bound of its 95% interval (paired percentile bootstrap; through SciPy, the same each time).
        high: upper bound.
        rows: examples.
        errors: how many of them failed: the champion's and the challenger's.
        better: examples that the challenger does better, the greatest gain first.
        worse: examples that it does worse, the greatest loss first.
        categories: mean scores by category; small categories stand together in one.
        reasons: why the rule doesn't hold, a sentence each; empty if it does.
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
        """Whether the challenger may take the champion's place."""
        return not self.reasons

    @property
    def verdict(self) -> str:
        """The result in a line."""
        span = f"95% interval {self.low:+.1%} to {self.high:+.1%}, {self.rows} examples"
        held = "The rule holds" if self.passed else "The rule doesn't hold"
        return f"{held}: {self.challenger} differs from {self.champion} by {self.difference:+.1%} ({span})."

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"passed": self.passed, **asdict(self)}

    def to_json(self) -> str:
        """As JSON; a bound that couldn't be computed is null."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in self.to_dict().items()}
        return json.dumps(plain, indent=2, ensure_ascii=False)

    def to_markdown(self) -> str:
        """As a report for people."""

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
    """Compare two evaluations of the same examples, pair by pair, and judge them by the rule.

    The rule, unless configured otherwise: the lower bound of the difference's 95% interval is above zero, and no
    category loses more than 0.10. Categories with fewer than five examples are judged together, as one; if even they
    are fewer than five, they are shown and not judged.

    Examples are told apart by their ``id``, where they have one, else by their order; of one that was repeated the mean
    counts.

    Args:
        champion: how the program that serves did.
        challenger: how the one that wants its place did.
        rule: the configured rule; ``None`` for the default.
        names: what the two are called.

    Raises:
        DataError: the examples aren't the same.
        OneTurnError: every example failed for one of them, so that it wasn't measured.
    """
    rule = rule or GateConfig()
    champion, challenger = (
        champion.by_example(),
        _in_the_order_of(champion.by_example(), challenger.by_example(), names),
    )
    _check(champion, challenger, names)
    before, after = (side.rows["score"].to_numpy(dtype=float) for side in (champion, challenger))
    differences = after - before
    low, high = interval_to_decide_by(differences)
    labels = list(map(_plain, challenger.rows[rule.category])) if rule.category in challenger.rows else None
    flips = list(_flips(challenger.rows, labels, before, after))
    categories = tuple(_categories(labels, before, after, rule)) if labels is not None else ()
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
        reasons=tuple(_reasons(low, len(differences), categories, rule)),
    )


def check_split(split: str) -> None:
    """Raise ``DataError`` if versions mustn't be compared on a split: train or test."""
    if split in _CLOSED:
        raise DataError(f"Versions aren't compared on the {split} split: {_CLOSED[split]}. Use dev.")


def _in_the_order_of(champion: Evaluation, challenger: Evaluation, names: tuple[str, str]) -> Evaluation:
    """The challenger's rows in the order of the champion's, by the examples' ids, where they have them."""
    if any("id" not in side.rows or side.rows["id"].duplicated().any() for side in (champion, challenger)):
        return challenger
    ids, others = (side.rows["id"].astype(str).tolist() for side in (champion, challenger))
    for name, own, missing in ((names[0], ids, set(others) - set(ids)), (names[1], others, set(ids) - set(others))):
        if missing:
            some = ", ".join([*sorted(missing)[:5], *(["…"] if len(missing) > 5 else [])])
            raise DataError(
                f"{name} wasn't measured on {len(missing)} examples that the other was measured on ({some}), but on "
                f"{len(own)}: measure both on the same."
            )
    if ids == others:
        return challenger
    return Evaluation(challenger.rows.set_index(challenger.rows["id"].astype(str)).loc[ids].reset_index(drop=True))


def _check(champion: Evaluation, challenger: Evaluation, names: tuple[str, str]) -> None:
    if not len(champion.rows) + len(challenger.rows):
        raise DataError("There are no examples to compare on.")
    if len(champion.rows) != len(challenger.rows):
        raise DataError(
            f"{names[0]} was measured on {len(champion.rows)} examples, {names[1]} on {len(challenger.rows)}: "
            "measure both on the same."
        )
    labels = [name for name in champion.labels if name in challenger.labels]
    for place, (one, other) in enumerate(
        zip(champion.rows[labels].to_dict("records"), challenger.rows[labels].to_dict("records"), strict=True)
    ):
        if list(map(_plain, one.values())) != list(map(_plain, other.values())):
            raise DataError(
                f"Example {place + 1} isn't the same for {names[0]} and {names[1]}: measure both on the same."
            )
    for name, side in zip(names, (champion, challenger), strict=True):
        if _errors(side) == len(side.rows):
            reason = side.rows["error"].iloc[0]
            raise OneTurnError(
                f"{name} wasn't measured: each of its {len(side.rows)} examples failed. The first: {reason}"
            )
        for example, score in zip(_shown(side.rows), side.rows["score"], strict=True):
            if not math.isfinite(score):
                raise DataError(f"The metric gave {example} of {name} the score {score}, which is no number.")


def _plain(value: Any) -> str | None:
    """A label as a table tells it: a list is a text, a number may be one, and a whole number may have a point."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _errors(evaluation: Evaluation) -> int:
    return int(evaluation.rows["error"].notna().sum())


def _flips(rows: pd.DataFrame, labels: Sequence[str | None] | None, before: Any, after: Any) -> Iterator[Flip]:
    shown = _shown(rows)
    for place in np.flatnonzero(np.abs(after - before) > _EQUAL).tolist():
        category = labels[place] if labels is not None else None
        yield Flip(shown[place], category, float(before[place]), float(after[place]))


def _shown(rows: pd.DataFrame) -> list[str]:
    """What the examples are called: by their ids, else by their first labels."""
    found = rows["id"] if "id" in rows else rows[next(iter(Evaluation(rows).labels), "score")]
    return list(map(str, found))


def _categories(labels: Sequence[str | None], before: Any, after: Any, rule: GateConfig) -> Iterator[CategoryChange]:
    frame = pd.DataFrame({"category": labels, "champion": before, "challenger": after})
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


def _reasons(low: float, rows: int, categories: Sequence[CategoryChange], rule: GateConfig) -> Iterator[str]:
    if rows < rule.min_examples:
        yield f"There are {rows} examples, too few to tell: the rule wants {rule.min_examples}."
    if not low > rule.min_difference + _EQUAL:
        yield f"The lower bound of the difference is {low:+.1%}; the rule wants it above {rule.min_difference:+.1%}."
    for found in categories:
        if found.judged and -found.difference > rule.max_category_loss + _EQUAL:
            yield (
                f"{found.category} loses {-found.difference:.1%} ({found.champion:.1%} to {found.challenger:.1%}, "
                f"{found.rows} examples); the rule allows {rule.max_category_loss:.1%}."
            )


SHOWN = 20
"""So many examples of each kind are listed."""

_SCORES = ("", "rows", "before", "after", "difference")
_FLIPS = ("example", "category", "before", "after")


def markdown(result: GateResult) -> str:
    """The report as Markdown."""
    parts = [f"# {_cell(result.challenger)} against {_cell(result.champion)}", _cell(result.verdict)]
    if result.reasons:
        parts.append("\n".join(f"- {_cell(reason)}" for reason in result.reasons))
    parts.append(_table(_SCORES, _scores(result)))
    for title, flips in _kinds(result):
        parts += [f"## {title}", _table(_FLIPS, _rows(flips))]
        if len(flips) > SHOWN:
            parts.append(f"and {len(flips) - SHOWN} more.")
    return "\n\n".join([*parts, *_notes(result)]) + "\n"


def tables(result: GateResult) -> Group:
    """The report for a terminal."""
    found: list[Table | str] = [f"[{'green' if result.passed else 'red'}]{escape(result.verdict)}[/]"]
    found += [f"  - {escape(reason)}" for reason in result.reasons]
    found.append(_rich(_SCORES, _scores(result)))
    for title, flips in _kinds(result):
        more = f" ({len(flips) - SHOWN} more aren't shown)" if len(flips) > SHOWN else ""
        found += [title + more, _rich(_FLIPS, _rows(flips))]
    return Group(*found, *_notes(result))


def _kinds(result: GateResult) -> Iterator[tuple[str, Sequence[Flip]]]:
    kinds = (("worse", result.worse), ("better", result.better))
    return ((f"{len(flips)} examples are {word}", flips) for word, flips in kinds if flips)


def _scores(result: GateResult) -> Iterator[list[str]]:
    interval = f"{result.difference:+.1%} ({result.low:+.1%} to {result.high:+.1%})"
    yield ["all", str(result.rows), f"{result.champion_score:.1%}", f"{result.challenger_score:.1%}", interval]
    for found in result.categories:
        yield [
            _name(found),
            str(found.rows),
            f"{found.champion:.1%}",
            f"{found.challenger:.1%}",
            f"{found.difference:+.1%}",
        ]


def _name(found: CategoryChange) -> str:
    return found.category if found.judged else f"{found.category} (too few to judge)"


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
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table
