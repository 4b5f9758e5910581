"""Weights of the embedded LM: the catalog, the cache folder, and ``fetch_weights("1.5B")``, which verifies them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from oneturn.errors import WeightsError

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 4.0
_DOWNLOAD_TRIES = 3


@dataclass(frozen=True)
class Weights:
    """One size of the model: its file, the file's SHA-256 and the publisher's repository on Hugging Face."""

    size: str
    model: str
    filename: str
    n_bytes: int
    sha256: str
    hub_repo: str


WEIGHTS = {
    "0.5B": Weights(
        size="0.5B",
        model="qwen2.5-coder-0.5b-instruct-q4_k_m",
        filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        n_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    ),
    "1.5B": Weights(
        size="1.5B",
        model="qwen2.5-coder-1.5b-instruct-q4_k_m",
        filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        n_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    ),
}
"""The weights of the embedded LM, by size."""


def weights_for(size: str) -> Weights:
    """Return the weights of a size. Raises ``WeightsError`` if the size is unknown."""
    if size not in WEIGHTS:
        raise WeightsError(f"The embedded LM has no size {size!r}; use one of: {', '.join(WEIGHTS)}.")
    return WEIGHTS[size]


def cache_folder() -> Path:
    """Return ``ONETURN_CACHE``, or ``oneturn`` in the user's cache folder of this platform."""
    from platformdirs import user_cache_path

    override = os.environ.get("ONETURN_CACHE")
    return Path(override).expanduser() if override else user_cache_path("oneturn", appauthor=False)


def ensure_folder(folder: Path) -> Path:
    """Create ``folder`` if it doesn't exist and return it. Raises ``WeightsError`` if it can't be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"The cache {folder} can't be created: {error}. Set ONETURN_CACHE to another folder."
        ) from error
    return folder


def fetch_weights(size: str | Weights, path: str | Path | None = None, cache: str | Path | None = None) -> Path:
    """Return the path of the weights' file, from ``path``, the cache folder or the publisher, in this order.

    The publisher's file is downloaded by ``huggingface_hub`` to its own cache, with its locks, its progress bar and
    its resumption of interrupted downloads; ``HF_HOME``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` apply. The SHA-256 of
    the file is verified, wherever it comes from.

    Args:
        size: ``"0.5B"``, ``"1.5B"`` or a ``Weights`` of your own.
        path: the file, or its folder. If given, neither the cache nor the network is used.
        cache: the cache folder; ``None`` for ``ONETURN_CACHE``, or else the user's cache folder.

    Raises:
        WeightsError: the size is unknown, ``path`` isn't the file, or the publisher can't be reached.
    """
    weights = size if isinstance(size, Weights) else weights_for(size)
    if path is not None:
        return _given_file(weights, Path(path).expanduser())
    folder = ensure_folder(Path(cache).expanduser() if cache is not None else cache_folder())
    cached = folder / weights.filename
    if cached.is_file() and _is_valid(cached, weights, folder):
        return cached
    downloaded = _download(weights, folder)
    if not _is_valid(downloaded, weights, folder):  # deleted: a damaged copy in the hub's cache is replaced once
        downloaded = _download(weights, folder)
        verify_file(downloaded, weights, folder)
    return downloaded


def verify_file(file: Path, weights: Weights, folder: Path) -> None:
    """Raise ``WeightsError``, with expected and actual values, unless ``file`` is exactly the weights' file.

    The result is remembered in ``folder`` with the file's size and modification time, which saves hashing it at each
    start (0.5 to 4 s). That guards against accidents only: a process that can write to this folder can change both.
    """
    record = folder / f"{weights.filename}.verified"
    stat = file.stat()
    state = {"file": str(file), "sha256": weights.sha256, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
    try:
        if json.loads(record.read_text()) == state:
            return
    except (OSError, ValueError):
        pass  # not verified yet
    _check_hash(file, weights)
    record.write_text(json.dumps(state))


def _check_hash(file: Path, weights: Weights) -> None:
    size = file.stat().st_size
    if size != weights.n_bytes:
        raise WeightsError(f"{file} has {size:,} bytes, not {weights.n_bytes:,}: it isn't {weights.filename}.")
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    actual = digest.hexdigest()
    if actual != weights.sha256:
        raise WeightsError(f"{file} is corrupt: its SHA-256 is {actual}, not {weights.sha256}.")


def _is_valid(file: Path, weights: Weights, folder: Path) -> bool:
    """Return whether ``file`` is the weights' file. A corrupt file is deleted, with a warning."""
    try:
        verify_file(file, weights, folder)
    except WeightsError as error:
        logger.warning("%s It is deleted and downloaded again.", error)
        file.resolve().unlink()  # the hub's cache has a link to the file
        file.unlink(missing_ok=True)
        return False
    return True


def _given_file(weights: Weights, path: Path) -> Path:
    file = path / weights.filename if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"There is no file {file}: give the path of {weights.filename}, or no path, to download it.")
    _check_hash(file, weights)
    return file


def _download(weights: Weights, folder: Path) -> Path:
    try:
        return _from_hub(weights)
    except WeightsError as error:
        raise WeightsError(
            f"{weights.filename} can't be downloaded from https://huggingface.co/{weights.hub_repo}: {error}. Give "
            f"this machine access to it, copy the file to {folder}, or set its path (lm.weights)."
        ) from error


def _from_hub(weights: Weights) -> Path:
    try:
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise WeightsError("huggingface_hub isn't installed: pip install huggingface_hub") from error
    cached = try_to_load_from_cache(weights.hub_repo, weights.filename)
    if isinstance(cached, str):
        return Path(cached)
    if constants.HF_HUB_OFFLINE:
        raise WeightsError("HF_HUB_OFFLINE is set")
    _probe(constants.ENDPOINT)
    tries_left = _DOWNLOAD_TRIES
    while True:
        tries_left -= 1
        try:
            return Path(hf_hub_download(weights.hub_repo, weights.filename, etag_timeout=_PROBE_SECONDS))
        except Exception as error:  # from httpx, requests or huggingface_hub itself, depending on its version
            if tries_left and not isinstance(error, HfHubHTTPError):
                continue  # the connection was lost: older versions raise, and resume when called again
            reason = str(error).strip().partition("\n")[0] or "no reason given"
            raise WeightsError(f"{type(error).__name__}: {reason}") from error


def _probe(endpoint: str) -> None:
    """Check once that ``endpoint`` responds: huggingface_hub retries six times, for 23 s, when the network is down."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 the user's own HF_ENDPOINT
        urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return  # an HTTP error is a response too
    except OSError as error:
        raise WeightsError(f"{endpoint} can't be reached: {error}") from error
