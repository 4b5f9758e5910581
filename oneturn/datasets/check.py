"""``check_data``: check an agent's examples without calling an LM."""

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
from oneturn.core.findings import Finding, Report, Severity
from oneturn.core.row_files import read_rows
from oneturn.core.serialization import plain
from oneturn.core.splits import (
    SPLITS,
    BadRow,
    Row,
    alternatives,
    default,
    read_schema,
    split_files,
    split_rows,
    types,
)
from oneturn.core.terminal import can_redraw
from oneturn.datasets.columns import odd_columns, unknown_calls
from oneturn.datasets.duplicates import NEAR, duplicates, input_text, normalize_text
from oneturn.datasets.schema import against_loader, against_schema, against_signature, unique_ids, unreadable
from oneturn.errors import DataError
from oneturn.programs import as_program

_EXPECTED = 5
_DRAWS = 1999
_UNLIKELY = 0.01  # significance level: 1 in 100 random splits of one source differ as much


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
        """Return the fraction of a split's rows that have the value, 0 to 1."""
        rows = sum(counts.get(split, 0) for counts in self.counts.values())
        return self.counts[value].get(split, 0) / rows if rows else 0.0


def label_fields(rows: Sequence[Row], schema: Mapping[str, Any] | None) -> list[str]:
    """Return the label fields: the schema's enums and booleans; without a schema, ``category`` and booleans."""
    if schema is not None:
        return [name for name in schema.get("properties", {}) if _is_label(schema, name)]
    names = dict.fromkeys(name for row in rows for name in row.values)
    return [name for name in names if name == "category" or _is_boolean(rows, name)]


def balances(rows: Sequence[Row], fields: Sequence[str], schema: Mapping[str, Any] | None = None) -> list[Balance]:
    """Count the values of each of ``fields``, per split. A row without the field has the schema's default, if any."""
    result = []
    for field in fields:
        counts: dict[str, Counter[str]] = {}
        missing = default(schema, field)
        for row in rows:
            if (value := row.values.get(field, missing)) is not None:
                counts.setdefault(_format_value(value), Counter())[row.split] += 1
        if counts:
            result.append(Balance(field, dict(sorted(counts.items()))))
    return result


def imbalances(balance: Balance, splits: Sequence[str]) -> Iterator[Finding]:
    """Yield warnings for values missing from train and for splits that differ more than chance explains."""
    for value, counts in balance.counts.items():
        if "train" in splits and not counts.get("train"):
            elsewhere = ", ".join(split for split in splits if counts.get(split))
            message = f"{balance.field} {value!r} occurs in {elsewhere} but not in train."
            yield _warning(balance, message, "Add rows with this value to train.", value)
    table = [[counts.get(split, 0) for split in splits] for counts in balance.counts.values()]
    if len(table) < 2 or len(splits) < 2 or not all(map(sum, zip(*table, strict=True))):
        return
    if (chance := _p_value(np.array(table))) < _UNLIKELY:
        message = f"the splits differ in {balance.field} (chi-squared test, p = {chance:.1g})."
        yield _warning(balance, message, "Give the splits the same mix of labels, so that their scores are comparable.")


def _p_value(table: Any) -> float:
    """Return the p-value of the chi-squared test of homogeneity.

    Where a cell has an expected count below five, the chi-squared approximation is unreliable (W. G. Cochran, "Some
    methods for strengthening the common chi-squared tests", 1954). The p-value then comes from random tables.
    """
    test = chi2_contingency(table, correction=False)
    if test.expected_freq.min() >= _EXPECTED:
        return float(test.pvalue)
    tables = random_table(table.sum(axis=1), table.sum(axis=0), seed=0).rvs(_DRAWS)
    differences = ((tables - test.expected_freq) ** 2 / test.expected_freq).sum(axis=(1, 2))
    return float((1 + (differences >= test.statistic - 1e-9).sum()) / (1 + _DRAWS))


def _is_label(schema: Mapping[str, Any], name: str) -> bool:
    return any("enum" in option or types(option) == ["boolean"] for option in alternatives(schema, name))


def _is_boolean(rows: Sequence[Row], name: str) -> bool:
    return all(isinstance(row.values[name], bool) for row in rows if row.values.get(name) is not None)


def _format_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _warning(balance: Balance, message: str, fix: str, value: Any = None) -> Finding:
    return Finding(Severity.warning, "balance", message, fix, field=balance.field, value=value)


RIGHT = 0.999
WRONG = 0.5


def read_results(path: Path, inputs: Sequence[str]) -> dict[str, list[float]]:
    """Read the scores of each example, by id or by input text, from a file that ``oneturn evaluate`` wrote.

    Raises:
        DataError: the file can't be read, or a row has no score.
    """
    scores: dict[str, list[float]] = {}
    for place, cells in read_rows(path):
        score = _score(path, place, cells)
        for key in _keys(cells, inputs):
            scores.setdefault(key, []).append(score)
    return scores


def difficulty(
    rows: Sequence[Row], results: Mapping[Path, Mapping[str, list[float]]], inputs: Sequence[str]
) -> Iterator[Finding]:
    """Yield a note for each example whose scores are all below 0.5, or all at least 0.999.

    For the test split, only counts are reported, to avoid tuning on test.

    Args:
        rows: the rows of all splits.
        results: what :func:`read_results` returned, by file. A file without scores for any row gives a warning.
        inputs: the names of the input fields.
    """
    for path, scores in results.items():
        if not any(_scores_of(row, scores, inputs) for row in rows):
            fix = "Pass a file that oneturn evaluate --output wrote for train or dev of this agent."
            yield Finding(Severity.warning, "results", f"{path} has no scores for these examples.", fix)
    scored = [
        (row, [score for scores in results.values() for score in _scores_of(row, scores, inputs)]) for row in rows
    ]
    for split in dict.fromkeys(row.split for row in rows):
        in_split = [(row, values) for row, values in scored if row.split == split]
        never = [(row, values) for row, values in in_split if values and max(values) < WRONG]
        always = [(row, values) for row, values in in_split if values and min(values) >= RIGHT]
        if split == "test":
            total = sum(bool(values) for _, values in in_split)
            yield from _count_findings(len(never), len(always), total)
            continue
        for row, values in never:
            counts = f"{_format_evaluations(values)}, best score {max(values):.2f}"
            message = f"no evaluation scores {row.name} as correct ({counts})."
            yield _note("never-right", row, message, "Check its label, and whether the question can be answered.")
        for row, values in always:
            message = f"every evaluation scores {row.name} as correct ({_format_evaluations(values)})."
            yield _note("always-right", row, message, "Use a harder example to distinguish programs.")


def _count_findings(never: int, always: int, total: int) -> Iterator[Finding]:
    if total:
        message = f"of {total} scored test examples, {never} are never correct and {always} always."
        yield Finding(Severity.note, "never-right", message, "Their ids are withheld to avoid tuning on test.")


def _score(path: Path, place: str, cells: Any) -> float:
    try:
        return float(cells["score"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}, {place}: has no score; pass a file that oneturn evaluate --output wrote.") from None


def _keys(values: Any, inputs: Sequence[str]) -> list[str]:
    ident, text = values.get("id"), normalize_text(input_text(values, inputs))
    return [f"id {ident}"] if ident else [f"asks {text}"] if text else []


def _scores_of(row: Row, scores: Mapping[str, list[float]], inputs: Sequence[str]) -> list[float]:
    by_id = scores.get(f"id {row.values.get('id')}", [])
    return by_id or scores.get(f"asks {normalize_text(input_text(row.values, inputs))}", [])


def _format_evaluations(scores: list[float]) -> str:
    return "1 evaluation" if len(scores) == 1 else f"{len(scores)} evaluations"


def _note(check: str, row: Row, message: str, fix: str) -> Finding:
    return Finding(Severity.note, check, message, fix, row.file, row.place)


_ORDER = list(Severity)
_PURPOSE = {
    "train": "Compiling needs training examples.",
    "dev": "Compiling and the gate score candidates on dev.",
    "test": "Without test, the agent's quality on examples that it wasn't tuned on is unknown.",
}
_SECONDS = 2.0  # delay before the progress bar is shown


@dataclass(frozen=True)
class DataReport(Report):
    """The result of :func:`check_data`; its findings are ordered, most severe first.

    Attributes:
        folder: the examples folder.
        rows: number of rows per split.
        balances: label counts per split.
    """

    folder: Path
    rows: Mapping[str, int]
    balances: tuple[Balance, ...]

    def to_dict(self, strict: bool = False) -> dict[str, Any]:
        """Return the report as JSON-compatible values; ``"passed"`` is :meth:`passed`."""
        return {
            "folder": str(self.folder),
            "rows": dict(self.rows),
            "passed": self.passed(strict),
            "findings": [_to_dict(finding) for finding in self.findings],
            "balance": {
                balance.field: {value: dict(counts) for value, counts in balance.counts.items()}
                for balance in self.balances
            },
        }


def check_data(
    agent: Agent, *, results: Sequence[Path | str] = (), similarity: float = NEAR, progress: bool = True
) -> DataReport:
    """Check an agent's examples.

    Each row is validated against ``schema.json`` in the same folder, the types of the agent's signature and the agent's
    own loader. Rows are compared within and across splits to find duplicates, and the splits by their mix of labels.

    Args:
        agent: the agent; ``data.examples`` of its configuration is the examples folder.
        results: files that ``oneturn evaluate --output`` wrote, to find examples that are always or never correct.
        similarity: the threshold for near-duplicate questions, above 0, at most 1.
        progress: whether to show a progress bar if the check takes longer than two seconds.

    Raises:
        DataError: the folder or one of its files can't be read, or the schema is invalid.
    """
    if not 0 < similarity <= 1:
        raise DataError(f"similarity is {similarity}; it must be above 0 and at most 1.")
    folder = agent.examples_folder
    program = as_program(agent.build())
    signature = program.signature
    inputs, outputs = list(signature.input_fields), list(signature.output_fields)
    schema, files = read_schema(folder), split_files(folder)
    parsed = [row for split, path in files.items() for row in split_rows(split, path, schema, signature)]
    rows = [row for row in parsed if isinstance(row, Row)]
    invalid = [row for row in parsed if isinstance(row, BadRow)]
    findings = [*unreadable(invalid), *_check_rows(rows, schema, signature, progress), *unique_ids(rows)]
    for split, path in files.items():
        findings += _check_loader(agent, split, path, findings)
    findings += odd_columns(rows)
    if isinstance(tools := getattr(program, "tools", None), Mapping):
        findings += unknown_calls(rows, tools)
    findings += duplicates(rows, inputs, outputs, similarity, progress)
    label_balances = balances(rows, label_fields(rows, schema), schema)
    findings += [finding for balance in label_balances for finding in imbalances(balance, list(files))]
    findings += difficulty(rows, {Path(path): read_results(Path(path), inputs) for path in results}, inputs)
    numbers = {split: sum(row.split == split for row in rows) for split in files}
    findings += _missing_splits(files, {row.file for row in parsed})
    return DataReport(tuple(sorted(findings, key=_severity_rank)), folder, numbers, tuple(label_balances))


def _check_rows(
    rows: Sequence[Row], schema: Mapping[str, Any] | None, signature: type[dspy.Signature], progress: bool
) -> list[Finding]:
    rows_with_progress = tqdm(rows, desc="check", unit="row", delay=_SECONDS, disable=not (progress and can_redraw()))
    findings = list(against_schema(rows_with_progress, schema)) if schema is not None else []
    reported = {(each.file, each.place, each.field) for each in findings}
    by_types = against_signature(rows, signature)
    return [*findings, *(each for each in by_types if (each.file, each.place, each.field) not in reported)]


def _check_loader(agent: Agent, split: str, path: Path, findings: Sequence[Finding]) -> list[Finding]:
    try:
        agent.examples(split)
    except DataError as error:
        return list(against_loader(path.name, error, findings))
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:  # the agent's own code
        loader_error = DataError(f"the agent's loader fails: {type(error).__name__}: {error}")
        return list(against_loader(path.name, loader_error, findings))
    return []


def _missing_splits(files: Mapping[str, Path], files_with_rows: Container[str]) -> Iterator[Finding]:
    """Yield findings for missing and empty splits."""
    for split in SPLITS:
        if split not in files:
            message = f"there is no {split}.jsonl, {split}.csv or {split}.parquet."
            yield Finding(Severity.note, "split", message, _PURPOSE[split])
        elif files[split].name not in files_with_rows:
            yield Finding(Severity.warning, "split", "the file has no rows.", _PURPOSE[split], files[split].name)


def _to_dict(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity.value,
        "check": finding.check,
        "message": finding.message,
        "fix": finding.fix,
        "file": finding.file,
        "place": finding.place,
        "field": finding.field,
        "value": plain(finding.value),
    }


def _severity_rank(finding: Finding) -> int:
    return _ORDER.index(finding.severity)
