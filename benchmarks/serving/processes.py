"""The processes of a measurement, started on free ports and stopped at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

_PATIENCE = 60.0


@contextmanager
def stub() -> Iterator[str]:
    """The stub LM; yields its URL."""
    with _running("benchmarks.serving.stub_lm", "/") as url:
        yield url


@contextmanager
def served(name: str, lm: str, tracking: str) -> Iterator[str]:
    """A contender behind a server, which writes its traces to ``tracking``, if given; yields the server's URL."""
    with _running("benchmarks.serving.server", "/cpu", name, "{port}", lm, *([tracking] if tracking else [])) as url:
        yield url


@contextmanager
def tracking_server() -> Iterator[str]:
    """MLflow's tracking server over a database of its own; yields its URL."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--host", "127.0.0.1", "--port", "{port}", "--workers", "1"]
        options += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        with _running("mlflow", "/health", "server", *options, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false") as url:
            yield url


@contextmanager
def _running(module: str, ready: str, *args: str, **environment: str) -> Iterator[str]:
    port = _free_port()
    told = [arg.format(port=port) for arg in args] or [str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *told],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url + ready, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"{url} didn't answer; the process says {process.poll()}.")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port
