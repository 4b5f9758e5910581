"""The database of the response store: its tables, its connections, and the error of a client while it is down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    select,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from oneturn.config import ServeConfig
from oneturn.core.database import create_tables, database_engine, database_problem
from oneturn.errors import AgentError, ConfigError

_TABLES = MetaData()

RESPONSES = Table(
    "oneturn_responses",
    _TABLES,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("expires", BigInteger, nullable=False, index=True),
    Column("previous", String(64)),
    Column("size", Integer, nullable=False),
    Column("input", Text, nullable=False),
    Column("resource", Text, nullable=False),
)
"""Responses: the request's input items, and the resource without its output. ``size`` counts the characters of all."""

ITEMS = Table(
    "oneturn_response_items",
    _TABLES,
    Column("response_id", String(64), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("item_hash", String(64), nullable=False, index=True),
    Column("item", Text, nullable=False),
)
"""The output items of the responses. An item is looked up by the SHA-256 of its id, which may be long."""

REQUESTS = Table(
    "oneturn_idempotency_keys",
    _TABLES,
    Column("key", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("claim", String(32), nullable=False),
    Column("lease", Float, nullable=False),
    Column("expires", BigInteger, nullable=False, index=True),
    Column("response_id", String(64)),
    Column("answer", LargeBinary),
    Index("oneturn_idempotency_keys_response", "response_id"),
)
"""Requests with an idempotency key: who runs them, until when, and their answers."""

EXPIRED_AT_ONCE = 50
"""How many expired rows of a table one request deletes."""

_RETRY_SECONDS = 2.0
_log = logging.getLogger(__name__)


def build_store(settings: ServeConfig) -> StoreDatabase | None:
    """Return the configured store; ``None`` if there is none. Nothing is connected yet.

    Raises:
        ConfigError: the environment variable isn't set, or the address in it is invalid.
    """
    address = settings.store_address()
    if address is None:
        return None
    try:
        return StoreDatabase(address, settings.store_ttl_seconds)
    except (SQLAlchemyError, ImportError, ValueError) as error:  # its text may repeat the address
        raise ConfigError(
            f"The address in {settings.store_env} (serve.store_env) can't be used ({type(error).__name__}). It has to "
            "be that of a database which processes share, such as sqlite:////data/store.db or "
            'postgresql://user@host/database; Postgres needs a driver: pip install "oneturn[store]"'
        ) from None


def expired_ids(connection: Connection, id: Column[str], now: float) -> Sequence[str]:
    """Lock some of the rows that have expired, without those that others have locked; return their ids."""
    expired = select(id).where(id.table.c.expires <= now).limit(EXPIRED_AT_ONCE)
    return connection.scalars(expired.with_for_update(skip_locked=True)).all()


def delete_expired_requests(connection: Connection, now: float) -> None:
    """Delete some of the requests with an idempotency key that have expired."""
    if keys := expired_ids(connection, REQUESTS.c.key, now):
        connection.execute(delete(REQUESTS).where(REQUESTS.c.key.in_(keys), REQUESTS.c.expires <= now))


class StoreDatabase:
    """The store's database. It is connected, and its tables are created, when they are first used.

    Args:
        address: the address, as for :func:`oneturn.core.database.database_engine`.
        ttl: how long a response is kept, in seconds.
        clock: returns the time in seconds since 1970.

    Raises:
        SQLAlchemyError, ImportError, ValueError, ConfigError: the address is invalid.
    """

    def __init__(self, address: str, ttl: float, clock: Callable[[], float] = time.time):
        self.ttl = ttl
        self.clock = clock
        self._engine = database_engine(address)
        self._has_tables = False

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection inside a transaction.

        Raises:
            AgentError: with status 503: the database can't be reached, or fails.
            IntegrityError: a row exists already.
        """
        try:
            self._create_tables()
            with self._engine.begin() as connection:
                yield connection
        except sqlalchemy.exc.IntegrityError:
            raise
        except SQLAlchemyError as error:
            _log.warning("The response store failed: %s", database_problem(error))
            raise AgentError(
                "The response store can't be reached. Retry later; or send the whole conversation in input and "
                "store: false, without previous_response_id and an Idempotency-Key.",
                "store_unavailable",
                503,
                _RETRY_SECONDS,
                retryable=True,
            ) from None

    def close(self) -> None:
        """Close the connections that aren't in use."""
        self._engine.dispose()

    def _create_tables(self) -> None:
        if not self._has_tables:  # without a lock: while the store is down, no request waits for another's attempt
            create_tables(self._engine, _TABLES)
            self._has_tables = True
