"""Requests with an ``Idempotency-Key``: run once, answered as often as they come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import dspy
import pytest
import sqlalchemy
from dspy.utils.exceptions import LMRateLimitError
from starlette.testclient import TestClient

import oneturn
from oneturn.core.run_context import RunContext
from oneturn.errors import AgentError
from oneturn.serving.request_limit import RequestLimit
from oneturn.serving.request_run import RequestRun
from oneturn.serving.run_queue import RunQueue
from oneturn.serving.served_agent import ServedAgent
from oneturn.serving.store import RecordedAnswer
from oneturn.serving.store import database as database_module
from oneturn.serving.store.database import REQUESTS, StoreDatabase
from oneturn.serving.store.idempotency import IdempotencyKeys, IdempotentRequest
from oneturn.testing import ScriptedLM, finish
from tests.serving.store.conftest import Server

PATHS = ("/v1/responses", "/responses")
BODY = {"input": [{"role": "user", "content": "Pay."}]}


class Counting:
    """A module that counts its runs; they end when they may."""

    def __init__(self) -> None:
        self.runs = 0
        self.started, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()
        self.failures: list[Exception] = []

    def agent(self) -> oneturn.ResponsesAdapter:
        counting = self

        class Module(dspy.Module):
            def forward(self, question: str) -> dspy.Prediction:
                counting.runs += 1
                run = counting.runs
                counting.started.set()
                counting.may_end.wait(60)
                if counting.failures:
                    raise counting.failures.pop()
                return dspy.Prediction(answer=f"Run {run}.")

        return oneturn.ResponsesAdapter(Module(), "question -> answer")


def send(client: TestClient, key: str | None, path: str = "/v1/responses", **fields: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(path, json={**BODY, **fields}, headers=headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_comes_twice_runs_once(server: Server, stream: bool, path: str):
    work = Counting()
    replicas = [server(work.agent()), server(work.agent())]
    first, again, last = (send(client, "k1", path, stream=stream) for client in (*replicas, replicas[0]))
    assert work.runs == 1
    assert "Run 1." in first.text
    assert first.content == again.content == last.content
    assert first.headers["content-type"] == again.headers["content-type"]
    assert "Run 2." in send(replicas[0], "k2", path, stream=stream).text
    assert "Run 3." in send(replicas[0], None, path, stream=stream).text


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_waits_for_the_one_that_runs(server: Server, stream: bool):
    work = Counting()
    work.may_end.clear()
    one, other = server(work.agent()), server(work.agent())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(send, one, "k", stream=stream)
        assert work.started.wait(60)
        second = pool.submit(send, other, "k", stream=stream)
        work.may_end.set()
        first_text, second_text = first.result(60).text, second.result(60).text
    assert work.runs == 1
    assert second_text.removeprefix(": waiting\n\n") == first_text


def test_another_body_under_the_same_key_is_refused(server: Server):
    work = Counting()
    client = server(work.agent())
    send(client, "k")
    for refused in (send(client, "k", stream=True), send(client, "k", "/responses"), send(client, "k", user="x")):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (409, "idempotency_key_reused")
        assert refused.headers["x-should-retry"] == "false"
    assert work.runs == 1


def test_a_key_is_only_good_for_the_api_key_that_sent_it(server: Server):
    work = Counting()
    answers = [send(server(work.agent(), key=key), "k").json() for key in ("one", "two", "one")]
    assert work.runs == 2
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
def test_an_invalid_key_is_refused(server: Server, key: str):
    refused = send(server(Counting().agent()), key.encode())
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_was_to_be_retried_runs_again(server: Server, stream: bool):
    work = Counting()
    work.failures = [LMRateLimitError("slow down")]
    client = server(work.agent())
    failed = send(client, "k", stream=stream)
    assert "rate_limit_exceeded" in failed.text
    assert "Run 2." in send(client, "k", stream=stream).text
    assert "Run 2." in send(client, "k", stream=stream).text


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_that_a_retry_can_t_fix_is_answered_again(server: Server, stream: bool):
    work = Counting()
    work.failures = [ValueError("broken")]
    client = server(work.agent())
    failed = send(client, "k", stream=stream)
    again = send(client, "k", stream=stream)
    assert (failed.status_code, failed.content) == (again.status_code, again.content)
    assert work.runs == 1


def test_a_refused_request_leaves_its_key_free(server: Server):
    client = server(Counting().agent())
    for number in range(20):  # the key is free before the refusal arrives
        assert send(client, f"k{number}", temperature=9).status_code == 400
        assert send(client, f"k{number}").status_code == 200


def test_the_answer_is_deleted_with_its_response(server: Server):
    work = Counting()
    client = server(work.agent())
    first = send(client, "k")
    client.delete(f"/v1/responses/{first.json()['id']}")
    assert "Run 2." in send(client, "k").text


@pytest.mark.parametrize("failures", [[], [ValueError("broken")], [LMRateLimitError("slow down")]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_has_its_answer_finds_it_kept(
    server: Server, stream: bool, failures: list[Exception], monkeypatch: pytest.MonkeyPatch
):
    order: list[str] = []
    end, put = IdempotentRequest.end, RunQueue.put

    def noted_end(request: IdempotentRequest, answer: RecordedAnswer | None) -> None:
        end(request, answer)
        order.append("kept")

    def noted_put(queue: RunQueue, value: Any) -> None:
        order.append(repr(value))
        put(queue, value)

    monkeypatch.setattr(IdempotentRequest, "end", noted_end)
    monkeypatch.setattr(RunQueue, "put", noted_put)
    work = Counting()
    work.failures = list(failures)
    send(server(work.agent()), "k", stream=stream)
    kept = order.index("kept")
    over = ("response.completed", "response.failed", "DONE") if stream else ("",)
    assert not any(sign in value for value in order[:kept] for sign in over)
    assert all(any(sign in value for value in order[kept:]) for sign in over[-1:])


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys(address: str) -> Iterator[IdempotencyKeys]:
    database = StoreDatabase(address, 1000, Clock())
    yield IdempotencyKeys(database)
    database.close()


def claim(keys: IdempotencyKeys) -> tuple[Any, Any]:
    """Claim the key ``k`` in a run that waits for nobody."""
    request = keys.request("me", "k", "/v1/responses", BODY)
    run = RunContext()
    run.cancel()
    with run.active():
        try:
            return request, request.claim(lambda: None)
        except AgentError as error:
            return request, error.code


def test_the_key_of_a_dead_process_is_free_when_its_lease_ends(keys: IdempotencyKeys):
    clock: Any = keys.database.clock
    dead, answer = claim(keys)
    assert dead.claimed
    assert answer is None
    assert claim(keys)[1] == "shutting_down"  # it waited
    clock.now += keys.lease - 1
    assert claim(keys)[1] == "shutting_down"
    keys.renew()
    clock.now += keys.lease - 1
    assert claim(keys)[1] == "shutting_down"
    clock.now += 2
    successor, answer = claim(keys)
    assert successor.claimed
    assert answer is None
    late, own = RecordedAnswer(), RecordedAnswer()
    late.add({"answer": "late"})
    own.add({"answer": "own"})
    dead.end(late)  # not dead after all
    successor.end(own)
    assert claim(keys)[1].value == {"answer": "own"}


def test_an_answer_is_kept_for_a_time(keys: IdempotencyKeys):
    clock: Any = keys.database.clock
    first, _ = claim(keys)
    answer = RecordedAnswer()
    answer.add(b"data: \xc3\xa9\n\n")
    answer.add(b"data: [DONE]\n\n")
    first.end(answer)
    clock.now += keys.database.ttl - 1
    assert claim(keys)[1].value == b"data: \xc3\xa9\n\ndata: [DONE]\n\n"
    clock.now += 2
    assert claim(keys)[0].claimed


def test_many_races_have_one_winner_each(keys: IdempotencyKeys):
    """A thousand of them: ``python -m tests.proof.idempotency``."""
    wins: list[int] = []

    def attempt(number: int) -> None:
        request = keys.request("me", f"k{number}", "/v1/responses", BODY)
        with RunContext().active():
            if request.claim(lambda: None) is None:
                wins.append(number)
                answer = RecordedAnswer()
                answer.add({"number": number})
                request.end(answer)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, sorted([*range(20)] * 2)))
    assert sorted(wins) == list(range(20))


def test_a_client_that_leaves_does_not_stop_its_run(address: str, monkeypatch: pytest.MonkeyPatch):
    import httpx

    from oneturn.config import ServeConfig

    monkeypatch.setenv("STORE", address)
    work = Counting()
    work.may_end.clear()
    with oneturn.running_server(work.agent(), settings=ServeConfig(store_env="STORE")) as url:
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=httpx.Timeout(60, read=2)) as client:
            client.post(f"{url}/v1/responses", json=BODY, headers={"Idempotency-Key": "k"})
        assert work.started.is_set()
        work.may_end.set()
        answer = httpx.post(f"{url}/v1/responses", json=BODY, headers={"Idempotency-Key": "k"}, timeout=60)
    assert answer.json()["status"] == "completed"
    assert work.runs == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leaves", ["before the claim", "at its moment"])
def test_a_client_that_leaves_early_leaves_its_key_free(
    keys: IdempotencyKeys, leaves: str, stream: bool, monkeypatch: pytest.MonkeyPatch
):
    work = Counting()
    agent, body = ServedAgent(work.agent()), {**BODY, "stream": stream}

    async def run(leave: Callable[[RequestRun], object] = lambda run: None) -> str:
        run = RequestRun(agent, body, "open_responses", {"x-request-id": "r"}, RequestLimit(2, 2))
        run.idempotent = keys.request("me", "k", "/v1/responses", body)
        leave(run)
        run.start()
        with suppress(AgentError):
            return str([chunk async for chunk in await run.chunks()] if stream else await run.response())
        return "refused"

    def leave_late(run: RequestRun) -> None:
        monkeypatch.setattr(work.may_end, "wait", lambda _: run.context.cancel("client_gone"))

    early = leaves == "before the claim"
    asyncio.run(run(RequestRun.disconnect if early else leave_late))
    assert work.runs == (0 if early else 1)
    answer = "Run 1." if early else "Run 2."
    assert answer in asyncio.run(run())
    assert answer in asyncio.run(run())


@pytest.mark.parametrize("keeps", [True, False])
def test_whoever_ends_deletes_answers_that_have_expired(
    keys: IdempotencyKeys, keeps: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database_module, "EXPIRED_AT_ONCE", 2)
    clock: Any = keys.database.clock
    answer = RecordedAnswer()
    answer.add({"answer": "own"})
    requests = [keys.request("me", f"k{number}", "/invocations", BODY) for number in range(5)]
    counts = []
    with RunContext().active():
        for number, request in enumerate(requests):
            request.claim(lambda: None)
            clock.now += (keys.database.ttl + 1) * (number == 2)
            request.end(answer if keeps or number < 2 else None)
            with keys.database.transaction() as connection:
                counts.append(connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(REQUESTS)))
    assert counts == ([1, 2, 1, 2, 3] if keeps else [1, 2, 0, 0, 0])


def test_without_a_store_the_header_means_nothing():
    from oneturn.serving import application

    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(finish(answer="1"), finish(answer="2")))
    with TestClient(application(oneturn.ResponsesAdapter(program))) as client:
        assert [send(client, "k").json()["output"][-1]["content"][0]["text"] for _ in "12"] == ["1", "2"]


def test_the_key_itself_isn_t_stored(server: Server, address: str):
    send(server(Counting().agent()), "customer-4711")
    database = StoreDatabase(address, 1000)
    with database.transaction() as connection:
        [row] = connection.execute(sqlalchemy.select(REQUESTS)).all()
    database.close()
    assert "customer-4711" not in str(row)
