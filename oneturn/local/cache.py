"""The folder where weights are kept, the lock that lets one process fetch, and the stamp of a verified file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oneturn.errors import WeightsError


def cache_folder() -> Path:
    """``ONETURN_CACHE``, or ``oneturn`` in the platform's folder for caches."""
    if given := os.environ.get("ONETURN_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "oneturn"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "oneturn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oneturn"


def made(folder: Path) -> Path:
    """``folder``, made if it isn't there. Raises ``WeightsError`` if that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"The cache {folder} can't be made: {error}. Set ONETURN_CACHE to another.") from error
    return folder


@contextmanager
def locked(target: Path, progress: bool) -> Iterator[None]:
    """Let one thread of one process fetch ``target``; the others wait and find it there."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        if progress:
            print(f"waiting for the process that is fetching {target.name}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# A stamp beside a verified file saves hashing it at each start (0.5 to 4 s). It holds the size and the time of change
# the file had when its hash was right, so it guards against accidents: whoever can write here can replace both.


def stamp(target: Path, sha256: str) -> None:
    """Note that ``target``, as it is now, has been found to have this SHA-256."""
    _beside(target).write_text(json.dumps(_state(target, sha256)))


def is_stamped(target: Path, sha256: str) -> bool:
    """Whether ``target`` has been found to have this SHA-256 and hasn't been touched since."""
    try:
        return bool(json.loads(_beside(target).read_text()) == _state(target, sha256))
    except (OSError, ValueError):
        return False


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.verified")


def _state(target: Path, sha256: str) -> dict[str, int | str]:
    stat = target.stat()
    return {"sha256": sha256, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
