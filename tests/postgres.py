"""A real Postgres server on a free port, in a folder of its own: Debian's ``postgresql``, or one on the ``PATH``.

Where none is installed, tests that need one are skipped; in CI (``CI=true``) they fail.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROLE, PASSWORD = "agent", "first-password"


class PostgresServer:
    """A running server.

    Attributes:
        port: its port at 127.0.0.1.
    """

    def __init__(self, programs: Path, folder: Path):
        self._programs = programs
        self._folder = folder
        self._numbers = itertools.count()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    def create(self) -> None:
        """Create the files of the server, and a role that needs its password."""
        password = self._folder / "password"
        password.write_text(PASSWORD)
        _give(password)
        access = ["--auth-host=scram-sha-256", "--auth-local=trust", f"--pwfile={password}"]
        self._run("initdb", "-D", self._data, "-U", _ROLE, "--no-sync", "--encoding=UTF8", *access)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log", "-o", options)

    def stop(self) -> None:
        """Stop the server at once; its connections break."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._data)

    def new_database(self) -> str:
        """Create an empty database; return its address."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{_ROLE}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> str:
        """Execute a statement; return its output."""
        host = ["-h", str(self._folder), "-p", str(self.port)]
        return self._run("psql", *host, "-U", _ROLE, "-d", "postgres", "-qAt", "-c", statement)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str | Path) -> str:
        command = [*_as_other_user(), str(self._programs / program), *map(str, arguments)]
        # To a file: the server inherits a pipe, which then has no end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(command, cwd="/", stdout=output, stderr=output, timeout=120, check=False)
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, text
        return text


def _as_other_user() -> list[str]:
    """The start of a command that isn't run by root, which Postgres refuses."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")


def _programs() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return installed[-1].parent if installed else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server within a ``with`` block."""
    pytest.importorskip("psycopg")
    programs = _programs()
    if programs is None:
        reason = "Postgres isn't installed: apt-get install postgresql"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="oneturn-postgres-"))  # pytest's own folders are closed to other users
    try:
        _give(folder)
        server = PostgresServer(programs, folder)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of a process; each test takes a database of its own."""
    with running_postgres() as server:
        yield server
