"""``check_data``: everything about an agent's examples that can be checked without an LM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import numpy as np
from scipy.stats import chi2_contingency, random_table
from tqdm.auto import tqdm

from oneturn.agent import Agent
from oneturn.core.findings import DataFinding, Severity
from oneturn.datasets.duplicates import NEAR, duplicates, input_text, same_text
from oneturn.datasets.rows import read_rows
from oneturn.datasets.schema import against_loader, against_schema, against_signature, unique_ids, unreadable
from oneturn.datasets.splits import SPLITS, BadRow, Row, alternatives, read_schema, split_files, split_rows, types
from oneturn.errors import DataError
from oneturn.programs import as_program

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


def imbalances(balance: Balance, splits: Sequence[str]) -> Iterator[DataFinding]:
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


def _warning(balance: Balance, message: str, fix: str, value: Any = None) -> DataFinding:
    return DataFinding(Severity.warning, "balance", message, fix, field=balance.field, value=value)


RIGHT = 0.999
WRONG = 0.5


def read_results(path: Path, inputs: Sequence[str]) -> dict[str, list[float]]:
    """Return the scores of each example, by its id or by what it asks, from a file that ``oneturn evaluate`` wrote.

    Raises:
        DataError: the file can't be read, or a row of it has no score.
    """
    scores: dict[str, list[float]] = {}
    for place, cells in read_rows(path):
        score = _score(path, place, cells)
        for key in _keys(cells, inputs):
            scores.setdefault(key, []).append(score)
    return scores


def difficulty(
    rows: Sequence[Row], results: Mapping[Path, Mapping[str, list[float]]], inputs: Sequence[str]
) -> Iterator[DataFinding]:
    """Note the examples whose every score is below 0.5, and those whose every score is 1.

    Of the test split only the numbers are told: what is tuned on them isn't measured by them.

    Args:
        rows: of all splits.
        results: by the files that they stand in, what :func:`read_results` returned; a file that tells nothing of any
            row is warned of.
        inputs: the fields that ask.
    """
    for path, scores in results.items():
        if not any(_of(row, scores, inputs) for row in rows):
            fix = "Give what oneturn evaluate --output wrote for train or dev of this agent."
            yield DataFinding(Severity.warning, "results", f"{path} has no row of these examples.", fix)
    every = [(row, [score for scores in results.values() for score in _of(row, scores, inputs)]) for row in rows]
    for split in dict.fromkeys(row.split for row in rows):
        measured = [(row, found) for row, found in every if row.split == split]
        never = [(row, found) for row, found in measured if found and max(found) < WRONG]
        always = [(row, found) for row, found in measured if found and min(found) >= RIGHT]
        if split == "test":
            total = sum(bool(found) for _, found in measured)
            yield from _counted(len(never), len(always), total)
            continue
        for row, found in never:
            message = f"no program gets {row.name} right ({_evaluations(found)}, best score {max(found):.2f})."
            yield _note("never-right", row, message, "See whether its label is right, and whether it can be answered.")
        for row, found in always:
            message = f"every program gets {row.name} right ({_evaluations(found)})."
            yield _note("always-right", row, message, "A harder example would tell programs apart.")


def _counted(never: int, always: int, total: int) -> Iterator[DataFinding]:
    if total:
        message = f"of {total} measured examples of test no program gets {never} right, and every program {always}."
        yield DataFinding(Severity.note, "never-right", message, "Which ones isn't told: nothing is tuned on test.")


def _score(path: Path, place: str, cells: Any) -> float:
    try:
        return float(cells["score"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}, {place}: has no score; give a file that oneturn evaluate --output wrote.") from None


def _keys(values: Any, inputs: Sequence[str]) -> list[str]:
    ident, text = values.get("id"), same_text(input_text(values, inputs))
    return [f"id {ident}"] if ident else [f"asks {text}"] if text else []


def _of(row: Row, scores: Mapping[str, list[float]], inputs: Sequence[str]) -> list[float]:
    by_id = scores.get(f"id {row.values.get('id')}", [])
    return by_id or scores.get(f"asks {same_text(input_text(row.values, inputs))}", [])


def _evaluations(scores: list[float]) -> str:
    return "1 evaluation" if len(scores) == 1 else f"{len(scores)} evaluations"


def _note(check: str, row: Row, message: str, fix: str) -> DataFinding:
    return DataFinding(Severity.note, check, message, fix, row.file, row.place)


_ORDER = list(Severity)
_LACKING = {
    "train": "Compiling needs examples to show to the LM.",
    "dev": "Compiling needs examples to judge candidates on, and so does the gate.",
    "test": "Without test, nothing tells how good the agent is on questions that it wasn't tuned on.",
}
_SECONDS = 2.0  # then a bar is shown


@dataclass(frozen=True)
class DataReport:
    """What a check of the examples found.

    Attributes:
        folder: where the examples stand.
        rows: how many rows each split has.
        findings: the worst first.
        balances: how often each label occurs in each split.
    """

    folder: Path
    rows: Mapping[str, int]
    findings: tuple[DataFinding, ...]
    balances: tuple[Balance, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are as bad as this."""
        return sum(finding.severity is severity for finding in self.findings)

    def passed(self, strict: bool = False) -> bool:
        """Whether there is no error and, if ``strict``, no warning."""
        return not self.count(Severity.error) and not (strict and self.count(Severity.warning))

    def to_dict(self, strict: bool = False) -> dict[str, Any]:
        """The report as JSON has it; passed as :meth:`passed` says it."""
        return {
            "folder": str(self.folder),
            "rows": dict(self.rows),
            "passed": self.passed(strict),
            "findings": [finding.to_dict() for finding in self.findings],
            "balance": {
                balance.field: {value: dict(counts) for value, counts in balance.counts.items()}
                for balance in self.balances
            },
        }


def check_data(
    agent: Agent, *, results: Sequence[Path | str] = (), similarity: float = NEAR, progress: bool = True
) -> DataReport:
    """Check the examples that an agent is taught and judged by.

    Each row is held against ``schema.json`` beside it, against the types of the agent's signature, and against the
    agent's own loader; the rows against each other, within and across splits; the splits in how their labels are mixed.

    Args:
        agent: whose examples; they stand in the folder that ``data.examples`` of its configuration names.
        results: files that ``oneturn evaluate --output`` wrote, to tell which examples no program gets right, and
            which every program does.
        similarity: how similar two questions are that count as nearly the same, above 0, up to 1.
        progress: whether to show a bar when it takes longer than two seconds.

    Raises:
        DataError: the folder or a file of it can't be read, or the schema isn't one.
    """
    if not 0 < similarity <= 1:
        raise DataError(f"similarity is {similarity}; it must be above 0, and 1 at most.")
    folder = agent.examples_folder
    signature = as_program(agent.build()).signature
    inputs, outputs = list(signature.input_fields), list(signature.output_fields)
    schema, files = read_schema(folder), split_files(folder)
    read = [row for split, path in files.items() for row in split_rows(split, path, schema)]
    rows, bad = [row for row in read if isinstance(row, Row)], [row for row in read if isinstance(row, BadRow)]
    findings = [*unreadable(bad), *_row_by_row(rows, schema, signature, progress), *unique_ids(rows)]
    for split, path in files.items():
        findings += _loaded(agent, split, path, findings)
    findings += duplicates(rows, inputs, outputs, similarity, progress)
    counted = balances(rows, label_fields(rows, schema))
    findings += [finding for balance in counted for finding in imbalances(balance, list(files))]
    findings += difficulty(rows, {Path(path): read_results(Path(path), inputs) for path in results}, inputs)
    numbers = {split: sum(row.split == split for row in rows) for split in files}
    findings += _lacking(files, {row.file for row in read})
    return DataReport(folder, numbers, tuple(sorted(findings, key=_badness)), tuple(counted))


def _row_by_row(
    rows: Sequence[Row], schema: Mapping[str, Any] | None, signature: type[dspy.Signature], progress: bool
) -> list[DataFinding]:
    shown = tqdm(rows, desc="check", unit="row", delay=_SECONDS, disable=not progress)
    found = list(against_schema(shown, schema)) if schema is not None else []
    return [*found, *against_signature(rows, signature)]


def _loaded(agent: Agent, split: str, path: Path, known: Sequence[DataFinding]) -> list[DataFinding]:
    try:
        agent.examples(split)
    except DataError as error:
        return list(against_loader(path.name, error, known))
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:  # the agent's own code
        told = DataError(f"the agent's loader fails: {type(error).__name__}: {error}")
        return list(against_loader(path.name, told, known))
    return []


def _lacking(files: Mapping[str, Path], filled: Container[str]) -> Iterator[DataFinding]:
    """What splits there are not, or without a row."""
    for split in SPLITS:
        if split not in files:
            message = f"there is no {split}.jsonl, .csv or .parquet."
            yield DataFinding(Severity.note, "split", message, _LACKING[split])
        elif files[split].name not in filled:
            yield DataFinding(Severity.warning, "split", "the file has no rows.", _LACKING[split], files[split].name)


def _badness(finding: DataFinding) -> int:
    return _ORDER.index(finding.severity)
