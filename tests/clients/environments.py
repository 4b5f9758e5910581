"""One isolated environment per client: a virtual environment, or a folder of npm packages with its own Node.

The versions are pinned in ``tests/clients/pins``. Environments are built once and kept in ``clients`` in
oneturn's cache folder; a changed pin or another Python version makes a new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from oneturn.lm.local.weights import cache_folder

PINS = Path(__file__).parent / "pins"
_MINUTES = 15  # for one environment with nothing cached


class EnvironmentUnavailable(Exception):
    """An environment can't be built; the message is the last line of the installer's output."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """Installed packages of one client.

    Attributes:
        name: the name of its pins.
        folder: where it is installed.
        program: its interpreter, Python or Node.
    """

    name: str
    folder: Path
    program: Path

    def version(self, package: str) -> str:
        """Return the installed version of a package."""
        if (manifest := self.folder / "node_modules" / package / "package.json").is_file():
            return str(json.loads(manifest.read_text())["version"])
        (distribution,) = importlib.metadata.distributions(
            name=package, path=[str(path) for path in self.folder.glob("lib/python*/site-packages")]
        )
        return distribution.version


def ensure_environment(name: str) -> Environment:
    """Return the environment with the pins of this name; it is built if the cache doesn't have it.

    Args:
        name: ``pins/<name>.txt`` for pip, or ``pins/<name>/package.json`` and its lock for npm.

    Raises:
        EnvironmentUnavailable: the packages can't be installed.
    """
    if (PINS / f"{name}.txt").is_file():
        pins = [PINS / f"{name}.txt"]
        folder = _ensure(name, pins, lambda folder: _install_python(pins[0], folder))
        return Environment(name, folder, folder / "bin" / "python")
    node = ensure_environment("node")
    pins = [PINS / name / "package.json", PINS / name / "package-lock.json"]
    folder = _ensure(name, [*pins, PINS / "node.txt"], lambda folder: _install_npm(pins, node.folder, folder))
    return Environment(name, folder, node.folder / "bin" / "node")


def _ensure(name: str, pins: list[Path], install: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256("\0".join([*(pin.read_text() for pin in pins), platform.python_version()]).encode())
    folder = cache_folder() / "clients" / f"{name}-{digest.hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        installed = folder / ".installed"  # written last, so that an interrupted installation starts again
        if not installed.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            print(f"clients: installing the environment {name}", file=sys.stderr, flush=True)
            install(folder)
            installed.touch()
    return folder


def _install_python(requirements: Path, folder: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--progress-bar", "off", "--no-deps"]
    _run([*pip, "-r", str(requirements)])


def _install_npm(pins: list[Path], node: Path, folder: Path) -> None:
    folder.mkdir()
    for pin in pins:
        shutil.copy(pin, folder)
    _run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, path=node / "bin")


def _run(command: list[str], cwd: Path | None = None, path: Path | None = None) -> None:
    environment = dict(os.environ)
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
        command = [str(path / command[0]), *command[1:]]
    try:
        subprocess.run(
            command, cwd=cwd, env=environment, check=True, capture_output=True, text=True, timeout=60 * _MINUTES
        )
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stdout + error.stderr).splitlines() if line.strip()]
        raise EnvironmentUnavailable(lines[-1] if lines else f"exit code {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnavailable(f"the installation took more than {_MINUTES} minutes") from error
