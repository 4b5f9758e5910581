"""One server process with concurrent conversations: isolation and graceful shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from oneturn.conformance import Severity, check_stream
from oneturn.conformance.endpoint import read_stream
from tests.serving.agent import MARKER

ROOT = Path(__file__).resolve().parents[2]
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


@contextmanager
def served(tmp_path: Path, together: int) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Start the agent's process; yield it and a client."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.serving.agent", str(together)]
    pipes: Any = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as process:
        assert process.stderr is not None
        try:
            url = next(line for line in process.stderr if line.startswith("Serving at ")).split()[2]
            limits = httpx.Limits(max_connections=None)
            with httpx.Client(base_url=url, timeout=90, trust_env=False, limits=limits) as client:
                yield process, client
        finally:
            process.kill()


def conversation(number: int, question: str = "Say it again") -> dict[str, Any]:
    """A request with a different marker in each part."""
    history = [
        {"role": "user", "content": f"Before that: marker-{number}a"},
        {"role": "assistant", "content": f"So it was: marker-{number}b"},
    ]
    last = {"role": "user", "content": f"{question}: marker-{number}c"}
    return {"input": [*history, last], "custom_inputs": {"note": f"marker-{number}d"}, "stream": True}


def markers_of(number: int) -> set[str]:
    return {f"marker-{number}{place}" for place in "abcd"}


def test_64_concurrent_conversations_are_isolated(tmp_path: Path):
    with served(tmp_path, together=64) as (_, client), ThreadPoolExecutor(64) as pool:
        bodies = list(pool.map(lambda number: client.post("/responses", json=conversation(number)).content, range(64)))
    for number, body in enumerate(bodies):
        stream = read_stream(body)
        assert check_stream(stream.events, answered=True) == []
        assert stream.ended
        assert stream.events[-1]["type"] == "response.completed"
        answer = stream.events[-1]["response"]["output"][-1]["content"][0]["text"]
        assert set(MARKER.findall(answer)) == markers_of(number)
        assert set(MARKER.findall(body.decode())) == markers_of(number)


class Reading:
    """A stream that is read step by step."""

    def __init__(self, client: httpx.Client, body: dict[str, Any]):
        self._opened = client.stream("POST", "/responses", json=body)
        self._chunks = self._opened.__enter__().iter_bytes()
        self.body = b""

    def until(self, word: bytes) -> None:
        while word not in self.body:
            self.body += next(self._chunks)

    def to_the_end(self) -> tuple[Any, ...]:
        for chunk in self._chunks:
            self.body += chunk
        self._opened.__exit__(None, None, None)
        stream = read_stream(self.body)
        assert stream.ended
        return stream.events


def test_a_terminated_server_finishes_or_cancels_open_streams(tmp_path: Path):
    kinds = ["slow", "never"] * 8
    with served(tmp_path, together=16) as (process, client), ThreadPoolExecutor(16) as pool:
        bodies = [conversation(number, f"Say it again, {kind}") for number, kind in enumerate(kinds)]
        streams = list(pool.map(lambda body: Reading(client, body), bodies))
        list(pool.map(lambda stream: stream.until(b"output_text.delta"), streams))  # every answer has started
        process.send_signal(signal.SIGTERM)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        events = list(pool.map(Reading.to_the_end, streams))
        assert process.wait(30) == -signal.SIGTERM  # uvicorn re-raises the signal after shutdown
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    for number, (kind, stream) in enumerate(zip(kinds, events, strict=True)):
        assert [broken for broken in check_stream(stream) if broken.severity is not Severity.note] == []
        last = stream[-1]
        if kind == "slow":
            assert last["type"] == "response.completed"
            assert set(MARKER.findall(last["response"]["output"][-1]["content"][0]["text"])) == markers_of(number)
        else:
            assert last["type"] == "response.incomplete"
            assert last["response"]["incomplete_details"] == {"reason": "shutting_down"}
            assert last["response"]["output"][-1]["status"] == "incomplete"  # the partial answer
