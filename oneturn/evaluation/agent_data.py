"""Read a file in the form of an agent's examples with the agent's own loader."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import dspy

from oneturn.agent import Agent, load_agent
from oneturn.config.loading import setting_all
from oneturn.core.row_files import read_rows
from oneturn.core.splits import split_files
from oneturn.errors import DataError


def load_data(agent: Agent, path: Path, agent_file: Path, config: Path | None = None) -> list[dspy.Example] | Path:
    """Return the examples in a file if it has the columns of the agent's example files, else the file itself.

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
    """Whether the first row has the columns of a row of one of the agent's splits."""
    try:
        files = split_files(agent.examples_folder).values()
    except DataError:  # the agent has no example files
        return False
    columns = _columns(path)
    return bool(columns) and any(columns == _columns(file) for file in files)


def _columns(path: Path) -> set[str]:
    first: Any = next(read_rows(path), ("", ""))[1]
    return set() if isinstance(first, str) else set(first)


def _are_same(examples: list[dspy.Example], rows: list[Any]) -> bool:
    """Whether the loader read the file, rather than examples from somewhere else."""
    return len(examples) == len(rows) and all(
        not isinstance(row, str) and all(name not in row or row[name] == value for name, value in _inputs(example))
        for example, row in zip(examples, rows, strict=True)
    )


def _inputs(example: dspy.Example) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in example.inputs().items() if isinstance(value, str)]
