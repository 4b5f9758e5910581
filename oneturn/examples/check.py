"""``check_data``: everything about an agent's examples that can be checked without an LM."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from tqdm.auto import tqdm

from oneturn.agent import Agent
from oneturn.errors import DataError
from oneturn.examples.balance import Balance, balances, imbalances, label_fields
from oneturn.examples.difficulty import difficulty, read_results
from oneturn.examples.duplicates import duplicates
from oneturn.examples.files import SPLITS, BadRow, Row, read_schema, split_files, split_rows
from oneturn.examples.findings import Finding, Severity
from oneturn.examples.near import NEAR
from oneturn.examples.schema import against_loader, against_schema, against_signature, unique_ids, unreadable
from oneturn.programs import as_program

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
    findings: tuple[Finding, ...]
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
) -> list[Finding]:
    shown = tqdm(rows, desc="check", unit="row", delay=_SECONDS, disable=not progress)
    found = list(against_schema(shown, schema)) if schema is not None else []
    return [*found, *against_signature(rows, signature)]


def _loaded(agent: Agent, split: str, path: Path, known: Sequence[Finding]) -> list[Finding]:
    try:
        agent.examples(split)
    except DataError as error:
        return list(against_loader(path.name, error, known))
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:  # the agent's own code
        told = DataError(f"the agent's loader fails: {type(error).__name__}: {error}")
        return list(against_loader(path.name, told, known))
    return []


def _lacking(files: Mapping[str, Path], filled: Container[str]) -> Iterator[Finding]:
    """What splits there are not, or without a row."""
    for split in SPLITS:
        if split not in files:
            message = f"there is no {split}.jsonl, .csv or .parquet."
            yield Finding(Severity.note, "split", message, _LACKING[split])
        elif files[split].name not in filled:
            yield Finding(Severity.warning, "split", "the file has no rows.", _LACKING[split], files[split].name)


def _badness(finding: Finding) -> int:
    return _ORDER.index(finding.severity)
