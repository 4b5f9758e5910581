"""A store that is down, full, read-only or restarted: what needs it gets 503, the rest is answered."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from oneturn.config import ServeConfig
from oneturn.core.database import create_tables, database_engine
from oneturn.errors import AgentError, ConfigError
from oneturn.serving.store import database as database_module
from oneturn.serving.store import responses as stored
from oneturn.serving.store.database import ITEMS, REQUESTS, RESPONSES, StoreDatabase, build_store
from oneturn.serving.store.responses import ResponseStore
from tests.postgres import running_postgres
from tests.serving.store.agents import ask, desk, text
from tests.serving.store.conftest import Server

DOWN = "postgresql://swordfish:swordfish@127.0.0.1:1/db"


def row(id: str, output: list[Any] | None = None) -> dict[str, Any]:
    return {"id": id, "object": "response", "output": output or []}


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_is_down(server: Server, address: str, stream: bool, caplog: pytest.LogCaptureFixture):
    client = server(desk(), address=DOWN)
    answered = ask(client, "code-one", stream)
    assert (answered["store"], text(answered)) == (False, "I heard code-one.")
    body = {"input": "?", "stream": stream}
    refused = [
        client.get("/v1/responses/resp_1"),
        client.delete("/v1/responses/resp_1"),
        client.post("/v1/responses", json={**body, "previous_response_id": "resp_1"}),
        client.post("/v1/responses", json={**body, "input": [{"type": "item_reference", "id": "msg_1"}]}),
        client.post("/v1/responses", json=body, headers={"Idempotency-Key": "k"}),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert answer.headers["Retry-After"]
        assert "swordfish" not in answer.text
    assert "The response store failed" in caplog.text
    assert "swordfish" not in caplog.text
    assert "code-one" not in caplog.text


def test_a_file_that_can_t_be_written(server: Server, tmp_path: Path):
    file = tmp_path / "read-only.db"
    with StoreDatabase(f"sqlite:///{file}", 1000).transaction():
        pass  # creates the tables
    client = server(desk(), address=f"sqlite:///file:{file}?mode=ro&uri=true")
    answered = ask(client, "code-one")
    assert (answered["store"], text(answered)) == (False, "I heard code-one.")
    assert client.get(f"/v1/responses/{answered['id']}").status_code == 404


def test_a_file_that_is_no_database(server: Server, tmp_path: Path):
    (tmp_path / "text.db").write_text("no database" * 100)
    client = server(desk(), address=f"sqlite:///{tmp_path / 'text.db'}")
    assert ask(client, "code-one")["store"] is False
    assert client.get("/v1/responses/resp_1").status_code == 503


def test_postgres_restarts_between_two_requests(server: Server):
    with running_postgres() as postgres:
        client = server(desk(), address=postgres.new_database())
        made = ask(client, "code-one")
        postgres.stop()
        assert client.get(f"/v1/responses/{made['id']}").status_code == 503
        assert ask(client, "code-two")["store"] is False
        postgres.start()
        assert client.get(f"/v1/responses/{made['id']}").json() == made
        assert text(ask(client, "?", previous_response_id=made["id"])) == "I heard code-one."


def test_requests_don_t_wait_for_each_other_to_connect(address: str, monkeypatch: pytest.MonkeyPatch):
    together = threading.Barrier(2)

    def create(engine: sqlalchemy.Engine, tables: sqlalchemy.MetaData) -> None:
        together.wait(10)  # broken, unless both are here
        create_tables(engine, tables)

    monkeypatch.setattr(database_module, "create_tables", create)
    database = StoreDatabase(address, 1000)
    store = ResponseStore(database)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda id: store.get("me", id), ["resp_1", "resp_2"])) == [None, None]
    database.close()


def test_others_create_each_table_just_before(address: str):
    tables = sqlalchemy.MetaData()
    for name in "abcd":
        sqlalchemy.Table(name, tables, sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
    engine, other = database_engine(address), database_engine(address)

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def create_first(*call: Any) -> None:
        if name := re.search(r"CREATE TABLE (\w)", call[2]):
            tables.tables[name[1]].create(other)

    create_tables(engine, tables)
    assert sqlalchemy.inspect(engine).get_table_names() == [*"abcd"]
    engine.dispose()
    other.dispose()


ADDRESSES = ["swordfish", "sqlite://", "sqlite:///:memory:", "oracle+swordfish://u:swordfish@h/d", "mysql://swordfish"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_can_t_be_used_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setenv("STORE", address)
    with pytest.raises(ConfigError, match="STORE") as refused:
        build_store(ServeConfig(store_env="STORE"))
    assert "swordfish" not in str(refused.value)
    monkeypatch.delenv("STORE")
    with pytest.raises(ConfigError, match=r"STORE \(serve.store_env\) isn't set"):
        build_store(ServeConfig(store_env="STORE"))


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_expired_responses_are_unreadable_and_deleted_bit_by_bit(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database_module, "EXPIRED_AT_ONCE", 2)
    clock = Clock()
    database = StoreDatabase(address, 100, clock)
    store = ResponseStore(database)
    for number in range(3):
        store.save("me", row(f"resp_{number}", [{"id": f"msg_{number}"}]), [], None)
    clock.now += 50
    store.save("me", row("resp_new"), [], "resp_2")
    clock.now += 51
    assert [store.get("me", f"resp_{number}") for number in range(3)] == [None] * 3
    assert store.items("me", ["msg_0"], 1000) == {}
    with pytest.raises(AgentError, match="resp_2"):
        store.conversation("me", "resp_new", 1000)
    counts = []
    for _ in range(2):
        store.delete_expired()
        with database.transaction() as connection:
            counts.append(
                [
                    connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(table))
                    for table in (RESPONSES, ITEMS, REQUESTS)
                ]
            )
    assert counts == [[2, 1, 0], [1, 0, 0]]
    assert store.get("me", "resp_new") == row("resp_new")
    database.close()


def test_conversations_have_limits(address: str, monkeypatch: pytest.MonkeyPatch):
    database = StoreDatabase(address, 100)
    store = ResponseStore(database)
    previous = None
    for number in range(12):
        store.save("me", row(f"resp_{number}", [{"id": f"a{number}"}]), [{"id": f"q{number}"}], previous)
        previous = f"resp_{number}"
    items = store.conversation("me", "resp_11", 10_000)
    assert [item["id"] for item in items] == [f"{kind}{number}" for number in range(12) for kind in "qa"]
    size = sum(len(str(item)) + 2 for item in items)
    with pytest.raises(AgentError) as too_large:
        store.conversation("me", "resp_11", size // 2)
    monkeypatch.setattr(stored, "MAX_TURNS", 12)
    assert len(store.conversation("me", "resp_11", 10_000)) == 24
    monkeypatch.setattr(stored, "MAX_TURNS", 11)
    with pytest.raises(AgentError) as too_long:
        store.conversation("me", "resp_11", 10_000)
    assert [error.value.status for error in (too_large, too_long)] == [413, 413]
    with pytest.raises(AgentError, match="larger"):
        store.items("me", [f"a{number}" for number in range(12)], 20)
    database.close()


SPECIALS = ["\x00", "\ud800", "'; DROP TABLE oneturn_responses; --", "%s %(x)s :x ?", "\u2028 \U0001f370", "\\u0000"]


def test_texts_of_all_kinds_survive(address: str):
    database = StoreDatabase(address, 100)
    store = ResponseStore(database)
    output = [{"id": special, "text": special} for special in SPECIALS]
    store.save("me", row("resp_1", output), [{"text": special} for special in SPECIALS], None)
    assert store.get("me", "resp_1") == row("resp_1", output)
    assert store.items("me", SPECIALS, 10_000) == dict(zip(SPECIALS, output, strict=True))
    assert store.conversation("me", "resp_1", 10_000) == [*({"text": special} for special in SPECIALS), *output]
    for owner in ("", "ME", "me ", "' OR 1=1 --"):
        assert store.get(owner, "resp_1") is None
        assert not store.delete(owner, "resp_1")
    assert [store.delete("me", "resp_1"), store.delete("me", "resp_1")] == [True, False]
    database.close()
