"""Read a file in the form of an agent's examples with the agent's own loader."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import dspy

from oneturn.agent import Agent, load_agent
from oneturn.config.loading import setting_all
from oneturn.core.row_files import read_rows
from oneturn.core.splits import read_schema, split_files
from oneturn.errors import DataError


def load_data(agent: Agent, path: Path, agent_file: Path, config: Path | None = None) -> list[dspy.Example] | Path:
    """Return the examples in a file if it has the columns of the agent's example files, else the file itself.

    Each row must have the columns that all examples have; it may have those that some have, or that the schema names.
    The agent's loader may derive labels that its metric needs.

    Args:
        agent: the agent.
        path: a ``.jsonl``, ``.csv`` or ``.parquet`` file.
        agent_file: the file that declares the agent; it is loaded again with ``data.examples`` set to a folder with
            ``path``.
        config: the configuration file instead of the agent's default.

    Raises:
        DataError: the loader rejects a row.
    """
    if not path.is_file() or not _has_the_form(agent, path):
        return path
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"test{path.suffix}"
        copy.symlink_to(path.resolve())
        with setting_all([f"data.examples={folder}"]):
            loader = load_agent(agent_file, config).examples
        try:
            examples = loader("test")
        except DataError as error:
            raise DataError(str(error).replace(str(copy), str(path)).replace(copy.name, path.name)) from None
    rows = [cells for _, cells in read_rows(path, infer_types=True)]
    return examples if _are_same(examples, rows) else path


def _has_the_form(agent: Agent, path: Path) -> bool:
    """Whether each row has the columns that all rows of the agent's splits have, and no unknown ones."""
    folder = agent.examples_folder
    try:
        examples = [columns for file in split_files(folder).values() for columns in _columns(file)]
        known = set((read_schema(folder) or {}).get("properties", {})).union(*examples)
    except DataError:  # the agent has no example files
        return False
    rows = _columns(path)
    return bool(rows and examples) and all(set.intersection(*examples) <= row <= known for row in rows)


def _columns(path: Path) -> list[set[str]]:
    """The columns of each row that can be parsed."""
    return [set(cells) for _, cells in read_rows(path) if not isinstance(cells, str)]


def _are_same(examples: list[dspy.Example], rows: list[Any]) -> bool:
    """Whether the loader read the file, rather than examples from somewhere else."""
    return len(examples) == len(rows) and all(
        not isinstance(row, str) and all(name not in row or row[name] == value for name, value in _inputs(example))
        for example, row in zip(examples, rows, strict=True)
    )


def _inputs(example: dspy.Example) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in example.inputs().items() if isinstance(value, str)]
