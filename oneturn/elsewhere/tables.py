"""A SQL result as text that an LM reads: CSV with the columns' names, and how much of it is told."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from databricks.sdk.service.sql import StatementResponse


def columns_of(response: StatementResponse) -> list[str]:
    """The columns' names."""
    schema = response.manifest.schema if response.manifest else None
    return [str(column.name) for column in (schema.columns or [] if schema else [])]


def told_table(response: StatementResponse, rows: Sequence[Sequence[str | None]], most: int) -> str:
    """Its first ``most`` rows as CSV; an empty value is one that is null."""
    if not rows:
        return "The result has no rows."
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns_of(response))
    writer.writerows(rows[:most])
    manifest = response.manifest
    total = (manifest.total_row_count if manifest else None) or len(rows)
    if total > most:
        text.write(f"(the first {most} of {total} rows)")
    elif manifest and manifest.truncated:
        text.write(f"(the first {len(rows[:most])} rows; there are more)")
    return text.getvalue().rstrip("\n")
