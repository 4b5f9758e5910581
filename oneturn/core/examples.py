"""Read the examples of a split for a signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
from pydantic import ValidationError

from oneturn.core.fields import validate_field
from oneturn.core.splits import SPLITS, BadRow, Row, read_schema, split_files, split_rows
from oneturn.errors import DataError


def read_examples(folder: Path, split: str, signature: type[dspy.Signature]) -> list[dspy.Example]:
    """Return the examples of a split, one a row, with all columns of the row.

    The signature's inputs are marked as inputs. A column that is a field of the signature has the field's type.

    Args:
        folder: the examples folder.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        signature: the program's signature.

    Raises:
        DataError: there is no such split, or rows can't be read, lack an input or have a value of another type.
    """
    if split not in SPLITS:
        raise DataError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    if (path := split_files(folder).get(split)) is None:
        raise DataError(f"{folder} has no {split} examples. Add {split}.jsonl.")
    examples: list[dspy.Example] = []
    problems: list[tuple[str, str]] = []
    for row in split_rows(split, path, read_schema(folder), signature):
        example = (row.place, row.reason) if isinstance(row, BadRow) else _example(row, signature)
        if isinstance(example, tuple):
            problems.append(example)
        else:
            examples.append(example)
    if problems:
        lines = "\n".join(f"  {path.name}, {place}: {reason}" for place, reason in problems)
        raise DataError(f"{path} has {len(problems)} rows that aren't examples:\n{lines}", problems)
    return examples


def _example(row: Row, signature: type[dspy.Signature]) -> dspy.Example | tuple[str, str]:
    """Return the example of a row, or its place and what is wrong with it."""
    values: dict[str, Any] = dict(row.values)
    for name, field in {**signature.input_fields, **signature.output_fields}.items():
        if name in values:
            try:
                values[name] = validate_field(field, values[name])
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                return row.place, f"{'.'.join(map(str, (name, *problem['loc'])))}: {problem['msg']}"
        elif name in signature.input_fields and field.is_required():
            return row.place, f"the input {name!r} is missing"
    return dspy.Example(**values).with_inputs(*(name for name in signature.input_fields if name in values))
