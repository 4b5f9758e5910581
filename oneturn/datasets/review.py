"""Examples that may become some: the files in which they wait for a person, and the way from there into a split."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oneturn.agent import Agent
from oneturn.datasets.rows import read_rows
from oneturn.datasets.schema import against_schema
from oneturn.datasets.splits import Row, read_schema, split_files
from oneturn.errors import DataError

CANDIDATES = "candidates.jsonl"
TO_LABEL = "to_label.jsonl"
ACCEPTED = "accepted.jsonl"
"""Where accepted examples come from: their traces aren't offered again, however a person has reworded them."""

PROVENANCE = "provenance"
"""What a candidate has beside an example's own fields."""

_NAMED = 5  # ids that an error names
_TEST = (
    "Examples of production don't enter test: the program has been tuned on what its users said of it, and what test "
    "then says of it is too good. Take train, or, to judge the next programs by it, dev."
)

Candidate = Mapping[str, Any]


def read_candidates(folder: Path, name: str = CANDIDATES) -> list[Candidate]:
    """The candidates of a folder; none if it has no such file.

    Raises:
        DataError: a line of it can't be read.
    """
    path = folder / name
    if not path.is_file():
        return []
    return list(_lines(path))


def write_candidates(folder: Path, found: Sequence[Candidate], name: str = CANDIDATES) -> None:
    """Write them all, whole or not at all; a file with none is taken away."""
    path = folder / name
    if not found:
        path.unlink(missing_ok=True)
        return
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode())


def accept(agent: Agent, ids: Sequence[str], split: str = "train") -> list[str]:
    """Move candidates into a split, each as its row stands in the file: a person has read it.

    Args:
        agent: whose examples.
        ids: the candidates'; empty for all of them.
        split: ``"train"``, or ``"dev"``; never ``"test"``.

    Returns:
        Their ids.

    Raises:
        DataError: the split is test; there is no such candidate; or one isn't yet as the schema or the agent's own
            loader wants it. Then nothing is moved.
    """
    if split not in ("train", "dev"):
        raise DataError(_TEST if split == "test" else f"There is no split {split!r}: take train or dev.")
    folder = agent.examples_folder
    waiting = read_candidates(folder)
    named = [str(row["id"]) for row in waiting if row.get("id") is not None]
    wanted = list(dict.fromkeys(ids or named))
    _refuse_unknown(folder, wanted, named)
    chosen = [row for row in waiting if str(row.get("id")) in wanted]
    _check([_row(row) for row in chosen], folder)
    _append(agent, split, [_row(row) for row in chosen])
    origins = [{"id": row["id"], "split": split, PROVENANCE: row.get(PROVENANCE, {})} for row in chosen]
    write_candidates(folder, [*read_candidates(folder, ACCEPTED), *origins], ACCEPTED)
    write_candidates(folder, [row for row in waiting if row not in chosen])
    return wanted


def _refuse_unknown(folder: Path, wanted: Sequence[str], named: Sequence[str]) -> None:
    """Refuse ids that no candidate has, or several."""
    if twice := [ident for ident in wanted if named.count(ident) > 1]:
        raise DataError(f"{folder / CANDIDATES} has {twice[0]!r} twice: give each candidate an id of its own.")
    unknown = [ident for ident in wanted if ident not in named]
    if not unknown:
        return
    if unknown[0] in [row.get("id") for row in read_candidates(folder, TO_LABEL)]:
        raise DataError(
            f"{unknown[0]!r} lacks its label: complete it in {folder / TO_LABEL}, and move it to {CANDIDATES}."
        )
    near = difflib.get_close_matches(unknown[0], named, n=_NAMED) or named[:_NAMED]
    told = ", ".join(near) + (", …" if len(named) > len(near) else "")
    raise DataError(f"{folder / CANDIDATES} has no {unknown[0]!r}; it has {told or 'none'}.")


def _lines(path: Path) -> Iterator[Candidate]:
    for place, cells in read_rows(path):
        if isinstance(cells, str):
            raise DataError(f"{path.name}, {place}: {cells}")
        yield cells


def _row(candidate: Candidate) -> dict[str, Any]:
    return {name: value for name, value in candidate.items() if name != PROVENANCE}


def _check(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    schema = read_schema(folder)
    if schema is None:
        return
    held = [Row("train", CANDIDATES, str(row.get("id")), row) for row in rows]
    if found := list(against_schema(held, schema)):
        told = "\n".join(f"  {finding.place}: {finding.message} {finding.fix}" for finding in found)
        raise DataError(f"These candidates aren't examples yet; edit them in {folder / CANDIDATES}:\n{told}")


def _append(agent: Agent, split: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the rows to the split's file; what the agent's own loader then refuses is taken back."""
    path = split_files(agent.examples_folder).get(split, agent.examples_folder / f"{split}.jsonl")
    if path.suffix != ".jsonl":
        raise DataError(f"{path} isn't JSONL, to which rows can be added: write it anew as {split}.jsonl.")
    before = path.read_bytes() if path.exists() else None
    own = {str(row.get("id")) for row in _lines(path)} if before is not None else set()
    if twice := next((row["id"] for row in rows if str(row.get("id")) in own), None):
        raise DataError(f"{path} has an example {twice!r} already.")
    gap = b"\n" if before and not before.endswith(b"\n") else b""
    _write(path, (before or b"") + gap + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    taken = False
    try:
        agent.examples(split)
        taken = True
    except DataError as error:
        raise DataError(f"The agent refuses these examples; edit them in {CANDIDATES}. {error}") from None
    finally:
        if not taken:
            _put_back(path, before)


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".tmp")
    partial.write_bytes(content)
    partial.replace(path)
