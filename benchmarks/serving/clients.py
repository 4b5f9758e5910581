"""Send requests to a contender and record its answers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest

_SENT_AT = re.compile(r"t=(\d+\.\d+);")


@dataclass(frozen=True)
class Answer:
    """One answer: whether it was complete, and the seconds from the LM sending its first piece to the client."""

    complete: bool
    first_piece: float | None


@dataclass(frozen=True)
class Measured:
    """The time, CPU and LM calls of a number of requests."""

    answers: list[Answer]
    seconds: float
    cpu: float
    lm_calls: int

    @property
    def complete(self) -> list[Answer]:
        """The complete answers."""
        return [answer for answer in self.answers if answer.complete]


Ask = Callable[[int], Answer]


def measure(ask: Ask, requests: int, clients: int, cpu: Callable[[], float], calls: Callable[[], int]) -> Measured:
    """Ask ``requests`` questions, ``clients`` at a time.

    Args:
        ask: asks question number n.
        requests: the total number of requests.
        clients: the number of concurrent requests.
        cpu: returns the CPU seconds that the answering process has used so far, including writing its traces.
        calls: returns the number of LM calls so far.
    """
    calls_before, cpu_before, start = calls(), cpu(), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, range(requests)))
    seconds = time.perf_counter() - start
    return Measured(answers, seconds, cpu() - cpu_before, calls() - calls_before)


def program_client(program: Any) -> Ask:
    """Call a DSPy program."""

    def ask(number: int) -> Answer:
        return Answer("answer" in program(question=f"Question {number}?").answer, None)

    return ask


def agent_client(agent: ResponsesAgent, streamed: bool = True) -> Ask:
    """Call an agent in this process."""

    def ask(number: int) -> Answer:
        request = ResponsesAgentRequest.model_validate({"input": [{"role": "user", "content": f"Question {number}?"}]})
        if streamed:
            return _read_events(event.model_dump() for event in agent.predict_stream(request))
        return _read_response(agent.predict(request).model_dump())

    return ask


def server_client(url: str, streamed: bool = True) -> Ask:
    """Send requests to a server."""
    client = httpx.Client(
        base_url=url,
        trust_env=False,
        timeout=300,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=128),
    )

    def ask(number: int) -> Answer:
        body = {"input": [{"role": "user", "content": f"Question {number}?"}], "stream": streamed}
        try:
            if not streamed:
                return _read_response(client.post("/responses", json=body).json())
            with client.stream("POST", "/responses", json=body) as response:
                return _read_events(_events(response))
        except httpx.HTTPError:
            return Answer(False, None)

    return ask


def server_cpu(url: str) -> Callable[[], float]:
    """Return a function that reads the server's CPU seconds."""

    def cpu() -> float:
        return float(httpx.get(f"{url}/cpu", trust_env=False, timeout=60).json())

    return cpu


def server_memory(url: str) -> tuple[int, int]:
    """Return a server's resident memory in bytes, and its number of Python objects."""
    memory = httpx.get(f"{url}/memory", trust_env=False, timeout=60).json()
    return int(memory["resident"]), int(memory["objects"])


def lm_calls(lm: str) -> Callable[[], int]:
    """Return a function that reads the stub LM's number of calls."""

    def calls() -> int:
        return int(httpx.get(f"{lm}/calls", trust_env=False, timeout=60).json())

    return calls


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def _read_events(events: Iterable[dict[str, Any]]) -> Answer:
    text, first, complete = "", None, False
    for event in events:
        if event.get("type") == "response.output_text.delta" and first is None:
            text += event["delta"]
            if sent_at := _SENT_AT.search(text):
                first = time.monotonic() - float(sent_at[1])
        item = event.get("item") or {}
        if event.get("type") == "response.output_item.done" and item.get("type") == "message":
            complete = _is_complete(item)
    return Answer(complete, first)


def _read_response(response: dict[str, Any]) -> Answer:
    messages = [item for item in response.get("output") or () if item.get("type") == "message"]
    return Answer(any(_is_complete(message) for message in messages), None)


def _is_complete(message: dict[str, Any]) -> bool:
    return "answer" in message["content"][0]["text"]
