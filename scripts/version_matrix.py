"""Run the unit tests on every supported Python, with the newest and the lowest allowed dependencies.

On the oldest and the newest Python it also walks a new user's first hour from a wheel (tests/scaffold/wheel_walk.py).

    python -m scripts.version_matrix
    python -m scripts.version_matrix --python 3.13 --resolution highest -- tests/responses

Each environment is made by uv, in ``.versions``, and kept: uv installs only what changed. uv must find the Pythons.
The runs follow one another, because tests that start servers need the machine to themselves. A table says what passed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".versions"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
WALKED = (PYTHONS[0], PYTHONS[-1])
RESOLUTIONS = ("highest", "lowest-direct")
QUICK = "not local_lm and not notebooks and not fresh_env"


@dataclass(frozen=True)
class Environment:
    """A Python version and how its dependencies are resolved."""

    python: str
    resolution: str

    @property
    def name(self) -> str:
        """Its name in file names."""
        return f"python{self.python}-{self.resolution}"

    @property
    def folder(self) -> Path:
        """The virtual environment's folder."""
        return FOLDER / self.name

    @property
    def log(self) -> Path:
        """The output of its tests."""
        return FOLDER / f"{self.name}.log"

    @property
    def interpreter(self) -> Path:
        """The path of its Python."""
        return self.folder / "bin" / "python"

    def install(self) -> None:
        """Create or update the environment.

        Raises:
            CalledProcessError: there is no such Python, or the dependencies can't be resolved or installed.
        """
        FOLDER.mkdir(exist_ok=True)
        requirements = FOLDER / f"{self.name}.txt"
        if not self.interpreter.exists():
            _uv("venv", "--python", self.python, str(self.folder))
        resolve = ("pip", "compile", "--all-extras", "--resolution", self.resolution, "--python-version", self.python)
        _uv(*resolve, "--upgrade", "--no-header", "pyproject.toml", "-o", str(requirements))
        _uv("pip", "sync", "--python", str(self.interpreter), str(requirements))
        _uv("pip", "install", "--python", str(self.interpreter), "pip")  # pip downloads weights, and MLflow records it
        _uv("pip", "install", "--python", str(self.interpreter), "--no-deps", "-e", ".")

    def test(self, arguments: Sequence[str]) -> Result:
        """Run the unit tests; their output goes to :attr:`log`."""
        started = time.monotonic()
        command = [str(self.interpreter), "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-m", QUICK]
        with self.log.open("w", encoding="utf-8") as output:
            done = subprocess.run([*command, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        lines = self.log.read_text(encoding="utf-8").strip().splitlines() or ["no output"]
        return Result(self, done.returncode == 0, lines[-1], time.monotonic() - started)


@dataclass(frozen=True)
class Result:
    """The outcome of a run: its last line, or why there was none."""

    environment: Environment
    passed: bool
    summary: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix and print its table. Returns 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION", help="default: %(default)s")
    parser.add_argument("--resolution", nargs="+", default=RESOLUTIONS, choices=RESOLUTIONS)
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args(arguments)
    environments = [Environment(python, how) for python in options.python for how in options.resolution]
    results = list(_run(environments, options.pytest))
    if not options.pytest:
        results += [_walk(python) for python in options.python if python in WALKED]
    _print(results)
    return 0 if all(result.passed for result in results) else 1


def _run(environments: Sequence[Environment], arguments: Sequence[str]) -> Iterator[Result]:
    for number, environment in enumerate(environments, 1):
        name = f"Python {environment.python}, {environment.resolution}"
        print(f"versions {number}/{len(environments)}: {name} (log: {environment.log})", flush=True)
        try:
            environment.install()
        except subprocess.CalledProcessError as error:
            yield Result(
                environment, False, f"not installed: {' '.join(error.cmd[:3])} ended with {error.returncode}", 0.0
            )
            continue
        yield environment.test(arguments)


def _walk(python: str) -> Result:
    """Walk a new user's first hour on a Python; the output goes to a log."""
    walk = Environment(python, "wheel")
    print(f"versions: a wheel on Python {python} (log: {walk.log})", flush=True)
    FOLDER.mkdir(exist_ok=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.scaffold.wheel_walk", "--python", python]
    with walk.log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
    lines = walk.log.read_text(encoding="utf-8").strip().splitlines() or ["no output"]
    return Result(walk, done.returncode == 0, lines[-1], time.monotonic() - started)


def _print(results: Sequence[Result]) -> None:
    table = Table("Python", "dependencies", "result", "minutes")
    for result in results:
        outcome = result.summary if result.passed else f"FAILED: {result.summary}"
        table.add_row(result.environment.python, result.environment.resolution, outcome, f"{result.seconds / 60:.1f}")
    Console(soft_wrap=True).print(table)


def _uv(*arguments: str) -> None:
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    subprocess.run([sys.executable, "-m", "uv", "-q", *arguments], cwd=ROOT, env=environment, check=True)  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
