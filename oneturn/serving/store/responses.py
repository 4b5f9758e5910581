"""Stored responses: saved when they end, read and deleted by the key that made them, forgotten when they expire."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, delete, insert, literal, select
from sqlalchemy.engine import Connection

from oneturn.errors import AgentError
from oneturn.serving.store.database import (
    ITEMS,
    REQUESTS,
    RESPONSES,
    StoreDatabase,
    delete_expired_requests,
    expired_ids,
)

Item = Mapping[str, Any]

MAX_TURNS = 1000
"""How many responses a conversation by ``previous_response_id`` may have."""

_BATCH = 200  # values in one statement


class ResponseStore:
    """The responses in a store.

    Args:
        database: the store's database.
    """

    def __init__(self, database: StoreDatabase):
        self._database = database

    def save(self, owner: str, resource: Mapping[str, Any], items: Sequence[Any], previous: str | None) -> None:
        """Save a response that has ended, in place of an earlier one with its id.

        Args:
            owner: who may read it.
            resource: the response.
            items: the input items of its request.
            previous: the id of the response before.

        Raises:
            AgentError: the store is down.
        """
        id, output = str(resource["id"]), [json.dumps(item) for item in resource["output"]]
        given, rest = json.dumps(items), json.dumps({**resource, "output": []})
        row = {"id": id, "owner": owner, "expires": int(self._now + self._database.ttl), "previous": previous}
        rows = [
            {"response_id": id, "position": position, "item_hash": _hash(item.get("id")), "item": text}
            for position, (item, text) in enumerate(zip(resource["output"], output, strict=True))
        ]
        with self._database.transaction() as connection:
            _delete(connection, [id])
            size = len(given) + sum(map(len, output))
            connection.execute(insert(RESPONSES).values(**row, size=size, input=given, resource=rest))
            if rows:
                connection.execute(insert(ITEMS), rows)

    def get(self, owner: str, id: str) -> dict[str, Any] | None:
        """Return a response; ``None`` if there is none for this owner.

        Raises:
            AgentError: the store is down.
        """
        with self._database.transaction() as connection:
            items = self._outputs(connection, [id])
            found = connection.execute(
                select(RESPONSES.c.resource).where(RESPONSES.c.id == id, *self._readable(owner))
            ).first()
        return None if found is None else {**json.loads(found.resource), "output": items.get(id, [])}

    def delete(self, owner: str, id: str) -> bool:
        """Delete a response, and the kept answers of its request; ``False`` if there is none for this owner.

        Raises:
            AgentError: the store is down.
        """
        with self._database.transaction() as connection:
            deleted = connection.execute(delete(RESPONSES).where(RESPONSES.c.id == id, *self._readable(owner)))
            if deleted.rowcount:
                connection.execute(delete(ITEMS).where(ITEMS.c.response_id == id))
                connection.execute(delete(REQUESTS).where(REQUESTS.c.response_id == id))
        return bool(deleted.rowcount)

    def conversation(self, owner: str, id: str, max_size: int) -> list[Any]:
        """Return the input and output items of a response and of all before it, oldest first.

        Args:
            owner: who asks.
            id: the response.
            max_size: how many characters the items may have.

        Raises:
            AgentError: the response, or one before it, isn't stored for this owner; or there are too many; or the store
                is down.
        """
        with self._database.transaction() as connection:
            turns = connection.execute(self._chain(owner, id, max_size)).all()
            if not turns:
                raise not_found(id)
            last = turns[-1]
            if last.total > max_size or (last.depth >= MAX_TURNS and last.previous is not None):
                raise _too_long(max_size)
            if last.previous is not None:
                raise not_found(last.previous, f"{id!r} continues it. ")
            ids = [turn.id for turn in turns]
            outputs = self._outputs(connection, ids)  # before the inputs: a response that still exists then was whole
            inputs = self._inputs(connection, ids)
        if missing := next((each for each in ids if each not in inputs), None):  # deleted meanwhile
            raise not_found(missing)
        return [item for each in reversed(ids) for item in (*inputs[each], *outputs.get(each, ()))]

    def items(self, owner: str, ids: Iterable[str], max_size: int) -> dict[str, Item]:
        """Return output items by id; those that aren't stored for this owner are left out.

        Args:
            owner: who asks.
            ids: the items.
            max_size: how many characters they may have.

        Raises:
            AgentError: they have more; or the store is down.
        """
        hashes = {_hash(id): id for id in ids}
        found: dict[str, Item] = {}
        size = 0
        with self._database.transaction() as connection:
            for batch in _batches(list(hashes)):
                query = select(ITEMS.c.item_hash, ITEMS.c.item).join(RESPONSES, RESPONSES.c.id == ITEMS.c.response_id)
                query = query.where(ITEMS.c.item_hash.in_(batch), *self._readable(owner)).order_by(RESPONSES.c.expires)
                for row in connection.execute(query):
                    size += len(row.item)
                    if size > max_size:
                        raise _too_long(max_size)
                    found[hashes[row.item_hash]] = json.loads(row.item)
        return found

    def delete_expired(self) -> None:
        """Delete some of the responses and kept answers that have expired.

        Raises:
            AgentError: the store is down.
        """
        with self._database.transaction() as connection:
            if ids := expired_ids(connection, RESPONSES.c.id, self._now):
                _delete(connection, ids)
            delete_expired_requests(connection, self._now)

    @property
    def _now(self) -> float:
        return self._database.clock()

    def _readable(self, owner: str) -> tuple[Any, Any]:
        return RESPONSES.c.owner == owner, RESPONSES.c.expires > self._now

    def _chain(self, owner: str, id: str, max_size: int) -> Select[Any]:
        """The response and those before it, newest first, up to the limits."""
        fields = RESPONSES.c.id, RESPONSES.c.previous
        first = select(*fields, literal(1).label("depth"), RESPONSES.c.size.label("total"))
        chain = first.where(RESPONSES.c.id == id, *self._readable(owner)).cte("chain", recursive=True)
        before = select(*fields, chain.c.depth + 1, chain.c.total + RESPONSES.c.size).where(
            RESPONSES.c.id == chain.c.previous,
            chain.c.depth < MAX_TURNS,
            chain.c.total <= max_size,
            *self._readable(owner),
        )
        chain = chain.union_all(before)
        return select(chain).order_by(chain.c.depth)

    def _inputs(self, connection: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
        inputs: dict[str, list[Any]] = {}
        for batch in _batches(ids):
            query = select(RESPONSES.c.id, RESPONSES.c.input).where(RESPONSES.c.id.in_(batch))
            inputs |= {row.id: json.loads(row.input) for row in connection.execute(query)}
        return inputs

    def _outputs(self, connection: Connection, ids: Sequence[str]) -> dict[str, list[Item]]:
        outputs: dict[str, list[Item]] = {}
        for batch in _batches(ids):
            query = select(ITEMS.c.response_id, ITEMS.c.item).where(ITEMS.c.response_id.in_(batch))
            for row in connection.execute(query.order_by(ITEMS.c.response_id, ITEMS.c.position)):
                outputs.setdefault(row.response_id, []).append(json.loads(row.item))
        return outputs


def not_found(id: str, why: str = "") -> AgentError:
    """Return the error of a previous response that isn't stored for the client."""
    message = (
        f"The previous response {id!r:.80} isn't stored. {why}It was made with store: false or another key, was "
        "deleted or has expired; send the items of the earlier turns in input, without previous_response_id."
    )
    return AgentError(message, "previous_response_not_found", 404, param="previous_response_id")


def _too_long(max_size: int) -> AgentError:
    message = (
        f"The stored conversation is larger than {max_size:,} characters (serve.max_body_mb) or longer than "
        f"{MAX_TURNS:,} responses. Send the items that matter in input, without previous_response_id."
    )
    return AgentError(message, "conversation_too_long", 413, param="input")


def _delete(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(delete(RESPONSES).where(RESPONSES.c.id.in_(ids)))
    connection.execute(delete(ITEMS).where(ITEMS.c.response_id.in_(ids)))


def _hash(id: Any) -> str:
    return hashlib.sha256(json.dumps(id).encode()).hexdigest()


def _batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))
