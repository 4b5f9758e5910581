"""SQL databases that replicas share, by SQLAlchemy address: SQLite, Postgres, and Postgres on Databricks (Lakebase).

An address with ``lakebase_instance=<name>`` has no password: each new connection gets a short-lived credential from the
Databricks SDK.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from oneturn.core.databricks_auth import workspace_client
from oneturn.errors import ConfigError

_log = logging.getLogger(__name__)

INSTANCE = "lakebase_instance"
"""The parameter of an address that names a Lakebase instance (provisioned)."""

ENDPOINT = "lakebase_endpoint"
"""The parameter of an address that names a Lakebase endpoint (autoscaling):
``projects/<project>/branches/<branch>/endpoints/<endpoint>``."""

_CONNECT_SECONDS = 5
_LOCK_SECONDS = 30
_UNANSWERED_MS = 10_000
_RENEW_SECONDS = 300.0
"""How long before its expiry a credential is replaced."""
_UNKNOWN_EXPIRY_SECONDS = 600.0


def database_engine(address: str) -> Engine:
    """Return the engine of a database; nothing is connected yet. Its errors don't show the values of statements.

    Args:
        address: an SQLAlchemy URL, such as ``sqlite:///store.db`` or ``postgresql://user@host/database``.

    Raises:
        SQLAlchemyError, ImportError, ValueError: the address is invalid, or its driver isn't installed. Their texts may
            repeat the address.
        ConfigError: the address has two sources of credentials.
    """
    url = make_url(address.strip())
    if url.get_backend_name() == "sqlite":
        _refuse_memory(url)
        return sqlalchemy.create_engine(url, connect_args={"timeout": _LOCK_SECONDS}, hide_parameters=True)
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg" if find_spec("psycopg") else "postgresql")
    credentials = _lakebase_credentials(url)
    url = url.difference_update_query((INSTANCE, ENDPOINT))
    options = _postgres_options(url, credentials is not None) if url.get_backend_name() == "postgresql" else {}
    engine = sqlalchemy.create_engine(
        url, connect_args=options, pool_pre_ping=True, pool_timeout=_CONNECT_SECONDS, hide_parameters=True
    )
    if credentials is not None:
        sqlalchemy.event.listen(engine, "do_connect", credentials.add_to)
    return engine


def create_tables(engine: Engine, tables: sqlalchemy.MetaData) -> None:
    """Create the tables that don't exist, also while other threads and replicas do the same.

    Raises:
        SQLAlchemyError: they can't be created.
    """
    missing: set[str] | None = None
    while True:
        try:
            tables.create_all(engine)
            return
        except SQLAlchemyError:  # perhaps another was first with one of them: SQLite commits each by itself
            before, missing = missing, set(tables.tables) - set(sqlalchemy.inspect(engine).get_table_names())
            if not missing:
                return
            if missing == before:
                raise


def check_database(address: str) -> str:
    """Connect to a database once, without changing it; return its kind, such as ``postgresql``.

    Raises:
        SQLAlchemyError, ImportError, ValueError: it can't be reached, or as for :func:`database_engine`.
    """
    engine = database_engine(address)
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
    finally:
        engine.dispose()
    return engine.dialect.name


def database_problem(error: BaseException) -> str:
    """Return what an error of a database says without its address, statement and values: the types of its causes."""
    cause = getattr(error, "orig", None) or error.__cause__
    names = [type(error).__name__, *([type(cause).__name__] if cause is not None else [])]
    state = getattr(cause, "sqlstate", None)
    return ", ".join(dict.fromkeys([*names, *([str(state)] if state else [])]))


def _refuse_memory(url: URL) -> None:
    if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
        raise ValueError("A database in memory isn't shared; name a file, as in sqlite:////data/store.db.")


def _postgres_options(url: URL, encrypted: bool) -> dict[str, Any]:
    """The options of libpq that bound the time of a dead connection, unless the address has its own."""
    if not url.get_driver_name().startswith("psycopg"):
        return {}
    options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "tcp_user_timeout": _UNANSWERED_MS}
    if encrypted:
        options["sslmode"] = "require"
    return {name: value for name, value in options.items() if name not in url.query}


class LakebaseCredentials:
    """The password of a Lakebase database: a credential of the agent, issued again shortly before it expires.

    Args:
        issue: returns a new credential and its expiry, in seconds since 1970.
        clock: returns the time in seconds since 1970.
    """

    def __init__(self, issue: Callable[[], tuple[str, float]], clock: Callable[[], float] = time.time):
        self._issue = issue
        self._clock = clock
        self._lock = threading.Lock()
        self._password, self._expires = "", 0.0

    def password(self) -> str:
        """Return the current credential.

        Raises:
            SQLAlchemyError: Databricks issues none.
        """
        with self._lock:
            if self._clock() > self._expires - _RENEW_SECONDS:
                try:
                    self._password, self._expires = self._issue()
                except Exception as error:
                    if self._clock() >= self._expires:
                        raise SQLAlchemyError("Databricks issued no credential for the database.") from error
                    _log.warning("The database's credential isn't renewed yet: %s", type(error).__name__)
            return self._password

    def add_to(self, dialect: object, record: object, arguments: object, parameters: dict[str, Any]) -> None:
        """Add the password to the parameters of a new connection: a listener of SQLAlchemy's ``do_connect``."""
        parameters["password"] = self.password()


def _lakebase_credentials(url: URL) -> LakebaseCredentials | None:
    instance, endpoint = url.query.get(INSTANCE), url.query.get(ENDPOINT)
    if not (instance or endpoint):
        return None
    if instance and endpoint:
        raise ConfigError(f"The database's address has {INSTANCE} and {ENDPOINT}; leave one out.")
    if url.password:
        raise ConfigError(f"The database's address has {INSTANCE or ENDPOINT} and a password; leave the password out.")

    def issue() -> tuple[str, float]:
        client = workspace_client(quick=True)
        if instance:
            issued = client.database.generate_database_credential(instance_names=[str(instance)])
            return str(issued.token), _expiry(issued.expiration_time)
        credential = client.postgres.generate_database_credential(endpoint=str(endpoint))
        expires = credential.expire_time
        return str(credential.token), _expiry(None) if expires is None else float(expires.seconds)

    return LakebaseCredentials(issue)


def _expiry(text: str | None) -> float:
    if not text:
        return time.time() + _UNKNOWN_EXPIRY_SECONDS
    whole_seconds = re.sub(r"\.\d+", "", text).replace("Z", "+00:00")
    return datetime.fromisoformat(whole_seconds).timestamp()
