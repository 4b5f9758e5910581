"""Start the processes of a measurement on free ports, and stop them at the end."""

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

_TIMEOUT = 300.0


@contextmanager
def run_stub_lm() -> Iterator[str]:
    """Run the stub LM; yields its URL."""
    with _run("benchmarks.serving.stub_lm", "/") as url:
        yield url


@contextmanager
def run_server(name: str, lm: str, tracking: str) -> Iterator[str]:
    """Serve a contender, which writes its traces to ``tracking`` unless that is empty; yields the server's URL."""
    with _run("benchmarks.serving.server", "/cpu", name, "{port}", lm, *([tracking] if tracking else [])) as url:
        yield url


@contextmanager
def run_tracking_server() -> Iterator[str]:
    """Run MLflow's tracking server with a temporary database; yields its URL."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--host", "127.0.0.1", "--port", "{port}", "--workers", "1"]
        options += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        with _run("mlflow", "/health", "server", *options, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false") as url:
            yield url


@contextmanager
def _run(module: str, ready: str, *args: str, **environment: str) -> Iterator[str]:
    port = _free_port()
    arguments = [arg.format(port=port) for arg in args] or [str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
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
        process.wait(timeout=_TIMEOUT)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"{url} didn't answer; the exit code of its process is {process.poll()}.")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
