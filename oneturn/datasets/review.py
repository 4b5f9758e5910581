"""Candidate examples: read, write and accept them into a split."""

from __future__ import annotations

import difflib
import fcntl
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oneturn.agent import Agent
from oneturn.core.row_files import json_line, read_rows, write_rows
from oneturn.core.splits import Row, read_schema, split_files
from oneturn.datasets.schema import against_schema
from oneturn.errors import DataError

CANDIDATES = "candidates.jsonl"
TO_LABEL = "to_label.jsonl"
ACCEPTED = "accepted.jsonl"
"""Records the traces of accepted examples, so that edited ones aren't collected again."""

REJECTED = "rejected.jsonl"
"""Records the traces of rejected candidates, so that they aren't collected again."""

PROVENANCE = "provenance"
"""The field of a candidate that isn't a field of the example."""

_MAX_IDS = 5  # ids listed in an error
_TEST_NOT_ALLOWED = (
    "Production examples can't be added to test: the program may have been tuned on the same feedback, and its test "
    "score would be too high. Use train, or dev to score later programs."
)

Candidate = Mapping[str, Any]

_LOCK = threading.Lock()


def read_candidates(folder: Path, name: str = CANDIDATES) -> list[Candidate]:
    """Return the candidates in a folder; empty if the file doesn't exist.

    Raises:
        DataError: a line can't be read.
    """
    path = folder / name
    if not path.is_file():
        return []
    return list(_read_lines(path))


def write_candidates(folder: Path, candidates: Sequence[Candidate], name: str = CANDIDATES) -> None:
    """Replace the file atomically; without candidates, delete it."""
    path = folder / name
    if not candidates:
        path.unlink(missing_ok=True)
        return
    write_rows(path, candidates)


def accept(agent: Agent, ids: Sequence[str], split: str = "train") -> list[str]:
    """Move reviewed candidates into a split, unchanged.

    Args:
        agent: the agent whose examples folder is used.
        ids: ids of the candidates; empty for all.
        split: ``"train"`` or ``"dev"``, never ``"test"``.

    Returns:
        The ids of the moved candidates.

    Raises:
        DataError: the split isn't allowed, a candidate doesn't exist, or the schema or the agent's own loader rejects
            one. Nothing is moved then.
    """
    folder = agent.examples_folder
    _check_split(split)
    with locked(folder):
        candidates = read_candidates(folder)
        available = [str(row["id"]) for row in candidates if row.get("id") is not None]
        selected = list(dict.fromkeys(ids or available))
        _check_ids(folder, selected, available)
        chosen = [row for row in candidates if str(row.get("id")) in selected]
        _move(agent, chosen, split)
        write_candidates(folder, [row for row in candidates if row not in chosen])
    return selected


def accept_edited(agent: Agent, ident: str, values: Mapping[str, Any], split: str = "train") -> None:
    """Move one candidate, labelled or not, into a split with the values that a person gave it.

    Args:
        agent: the agent whose examples folder is used.
        ident: the candidate's id.
        values: the fields of the example, without ``id`` and provenance.
        split: ``"train"`` or ``"dev"``, never ``"test"``.

    Raises:
        DataError: as for :func:`accept`. Nothing is changed then.
    """
    _check_split(split)
    with locked(agent.examples_folder):
        file, rows, row = _find(agent.examples_folder, ident)
        _move(agent, [{"id": row["id"], **values, PROVENANCE: row.get(PROVENANCE, {})}], split)
        write_candidates(agent.examples_folder, [other for other in rows if other is not row], file)


def reject(agent: Agent, ident: str) -> None:
    """Drop a candidate, and record its trace, so that it isn't collected again.

    Raises:
        DataError: there is no such candidate.
    """
    folder = agent.examples_folder
    with locked(folder):
        file, rows, row = _find(folder, ident)
        origin = {"id": row["id"], PROVENANCE: row.get(PROVENANCE, {})}
        write_candidates(folder, [*read_candidates(folder, REJECTED), origin], REJECTED)
        write_candidates(folder, [other for other in rows if other is not row], file)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an examples folder while its files are read and replaced: several people may review at once.

    Threads wait for each other; processes do so too, where the file system has locks.
    """
    with _LOCK:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def waiting_candidates(folder: Path) -> list[tuple[str, Candidate]]:
    """Return the candidates that wait for a person, those with a label first, each with the name of its file.

    Raises:
        DataError: a line can't be read, or a candidate has no id of its own.
    """
    rows = [(file, row) for file in (CANDIDATES, TO_LABEL) for row in read_candidates(folder, file)]
    names: set[str] = set()
    for file, row in rows:
        name = None if row.get("id") is None else str(row["id"])
        if name is None or name in names:
            problem = "has a candidate without an id" if name is None else f"has a second candidate {name!r:.80}"
            raise DataError(f"{folder / file} {problem}: give each candidate a unique id.")
        names.add(name)
    return rows


def provenance_of(candidate: Candidate) -> dict[str, Any]:
    """Return where a candidate comes from: its texts and its further expectations, of which a person may write any."""
    given = candidate.get(PROVENANCE)
    return {
        name: value
        for name, value in (given.items() if isinstance(given, Mapping) else ())
        if isinstance(value, Mapping if name == "expected" else str)
    }


def _find(folder: Path, ident: str) -> tuple[str, list[Candidate], Candidate]:
    """Return the file of a candidate, the file's rows, and the candidate."""
    waiting = waiting_candidates(folder)
    for file, row in waiting:
        if str(row["id"]) == ident:
            return file, [other for name, other in waiting if name == file], row
    raise DataError(f"There is no candidate {ident!r:.80} in {folder}; it may have been reviewed already.")


def _check_split(split: str) -> None:
    if split not in ("train", "dev"):
        raise DataError(_TEST_NOT_ALLOWED if split == "test" else f"There is no split {split!r}; use train or dev.")


def _move(agent: Agent, chosen: Sequence[Candidate], split: str) -> None:
    """Append candidates to a split, and record their traces."""
    folder = agent.examples_folder
    rows = [without_provenance(row) for row in chosen]
    _check(rows, folder)
    _append(agent, split, rows)
    origins = [{"id": row["id"], "split": split, PROVENANCE: row.get(PROVENANCE, {})} for row in chosen]
    write_candidates(folder, [*read_candidates(folder, ACCEPTED), *origins], ACCEPTED)


def _check_ids(folder: Path, selected: Sequence[str], available: Sequence[str]) -> None:
    """Raise if an id belongs to no candidate, or to several."""
    if twice := [ident for ident in selected if available.count(ident) > 1]:
        raise DataError(f"{folder / CANDIDATES} has {twice[0]!r} twice: give each candidate a unique id.")
    unknown = [ident for ident in selected if ident not in available]
    if not unknown:
        return
    if unknown[0] in [row.get("id") for row in read_candidates(folder, TO_LABEL)]:
        raise DataError(
            f"{unknown[0]!r} has no label: complete it in {folder / TO_LABEL}, then move it to {CANDIDATES}."
        )
    near = difflib.get_close_matches(unknown[0], available, n=_MAX_IDS) or available[:_MAX_IDS]
    listed = ", ".join(near) + (", …" if len(available) > len(near) else "")
    raise DataError(f"{folder / CANDIDATES} has no {unknown[0]!r}; available: {listed or 'none'}.")


def _read_lines(path: Path) -> Iterator[Candidate]:
    for place, cells in read_rows(path):
        if isinstance(cells, str):
            raise DataError(f"{path.name}, {place}: {cells}")
        yield cells


def without_provenance(candidate: Candidate) -> dict[str, Any]:
    """Return the fields of the example."""
    return {name: value for name, value in candidate.items() if name != PROVENANCE}


def _check(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    schema = read_schema(folder)
    if schema is None:
        return
    schema_rows = [Row("train", CANDIDATES, str(row.get("id")), row) for row in rows]
    if findings := list(against_schema(schema_rows, schema)):
        listed = "\n".join(f"  {finding.place}: {finding.message} {finding.fix}" for finding in findings)
        raise DataError(f"These candidates aren't valid examples; edit them in {folder / CANDIDATES}:\n{listed}")


def _append(agent: Agent, split: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append the rows to the split's file; restore it if the agent's own loader rejects them."""
    path = split_files(agent.examples_folder).get(split, agent.examples_folder / f"{split}.jsonl")
    if path.suffix != ".jsonl":
        raise DataError(f"{path} isn't JSONL, so rows can't be appended: convert it to {split}.jsonl.")
    before = path.read_bytes() if path.exists() else None
    existing = list(_read_lines(path)) if before is not None else []
    rows = [row for row in rows if row not in existing]  # a move that was interrupted before its end
    existing_ids = {str(row.get("id")) for row in existing}
    if twice := next((row["id"] for row in rows if str(row.get("id")) in existing_ids), None):
        raise DataError(f"{path} already has an example {twice!r}.")
    gap = b"\n" if before and not before.endswith(b"\n") else b""
    _write(path, (before or b"") + gap + "".join(map(json_line, rows)).encode())
    loaded = False
    try:
        agent.examples(split)
        loaded = True
    except DataError as error:
        raise DataError(f"The agent's loader rejects these examples; edit them in {CANDIDATES}. {error}") from None
    finally:
        if not loaded:
            _restore(path, before)


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".tmp")
    partial.write_bytes(content)
    partial.replace(path)
