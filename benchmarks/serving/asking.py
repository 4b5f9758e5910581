"""How a contender is asked, and what is noted of each answer."""

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

_SENT = re.compile(r"t=(\d+\.\d+);")


@dataclass(frozen=True)
class Answer:
    """One answer: whether it was whole, and how long its first piece was on its way from the LM, in seconds."""

    whole: bool
    first_piece: float | None


@dataclass(frozen=True)
class Measured:
    """What a number of requests took."""

    answers: list[Answer]
    seconds: float
    cpu: float
    lm_calls: int

    @property
    def whole(self) -> list[Answer]:
        """The answers that came whole."""
        return [answer for answer in self.answers if answer.whole]


Ask = Callable[[int], Answer]


def measure(ask: Ask, requests: int, clients: int, cpu: Callable[[], float], calls: Callable[[], int]) -> Measured:
    """Ask ``requests`` questions, ``clients`` at a time.

    Args:
        ask: asks question number n.
        requests: how many in all.
        clients: how many at the same time.
        cpu: seconds of CPU used so far by the process that answers, all that it has to write included.
        calls: how often the LM was called so far.
    """
    called, used, began = calls(), cpu(), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, range(requests)))
    seconds = time.perf_counter() - began
    return Measured(answers, seconds, cpu() - used, calls() - called)


def asking_program(program: Any) -> Ask:
    """A DSPy program, called."""

    def ask(number: int) -> Answer:
        return Answer("answer" in program(question=f"Question {number}?").answer, None)

    return ask


def asking_agent(agent: ResponsesAgent, streamed: bool = True) -> Ask:
    """An agent in this process."""

    def ask(number: int) -> Answer:
        request = ResponsesAgentRequest.model_validate({"input": [{"role": "user", "content": f"Question {number}?"}]})
        if streamed:
            return _read(event.model_dump() for event in agent.predict_stream(request))
        return _read_whole(agent.predict(request).model_dump())

    return ask


def asking_server(url: str, streamed: bool = True) -> Ask:
    """A server."""
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
                return _read_whole(client.post("/responses", json=body).json())
            with client.stream("POST", "/responses", json=body) as response:
                return _read(_events(response))
        except httpx.HTTPError:
            return Answer(False, None)

    return ask


def cpu_of(url: str) -> Callable[[], float]:
    """The CPU that a server has used, as it tells."""

    def cpu() -> float:
        return float(httpx.get(f"{url}/cpu", trust_env=False, timeout=60).json())

    return cpu


def memory_of(url: str) -> tuple[int, int]:
    """What a server has in memory now: bytes, and Python objects."""
    told = httpx.get(f"{url}/memory", trust_env=False, timeout=60).json()
    return int(told["resident"]), int(told["objects"])


def calls_of(lm: str) -> Callable[[], int]:
    """How often the stub LM was called, as it tells."""

    def calls() -> int:
        return int(httpx.get(f"{lm}/calls", trust_env=False, timeout=60).json())

    return calls


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def _read(events: Iterable[dict[str, Any]]) -> Answer:
    told, first, whole = "", None, False
    for event in events:
        if event.get("type") == "response.output_text.delta" and first is None:
            told += event["delta"]
            if sent := _SENT.search(told):
                first = time.monotonic() - float(sent[1])
        item = event.get("item") or {}
        if event.get("type") == "response.output_item.done" and item.get("type") == "message":
            whole = _is_whole(item)
    return Answer(whole, first)


def _read_whole(response: dict[str, Any]) -> Answer:
    messages = [item for item in response.get("output") or () if item.get("type") == "message"]
    return Answer(any(_is_whole(message) for message in messages), None)


def _is_whole(message: dict[str, Any]) -> bool:
    return "answer" in message["content"][0]["text"]
