"""Ledgers record used approvals, so that none is used twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

RETENTION = 6 * 3600.0
"""Seconds that a used approval is kept beyond its expiry: a replica whose clock is ahead must not forget it early."""


class Ledger(Protocol):
    """Records used approvals."""

    def spend(self, nonce: str, expires: int) -> bool:
        """Record the use of an approval.

        Args:
            nonce: the approval's number used once.
            expires: when it expires, in seconds since 1970.

        Returns:
            ``False`` if the approval was used before.
        """


class MemoryLedger:
    """Records used approvals in memory, for a single replica. Several replicas share a :class:`DatabaseLedger`.

    Args:
        clock: returns the time in seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()
        self._clock = clock

    def spend(self, nonce: str, expires: int) -> bool:
        """Record the use of an approval; ``False`` if it was used before."""
        with self._lock:
            oldest = self._clock() - RETENTION
            self._spent = {spent: until for spent, until in self._spent.items() if until >= oldest}
            if nonce in self._spent:
                return False
            self._spent[nonce] = expires
            return True


class DatabaseLedger:
    """Records used approvals in a database shared by all replicas; only the first insert of an approval succeeds.

    Args:
        url: the address, as for :func:`oneturn.core.database.database_engine`, such as ``sqlite:///approvals.db`` or
            ``postgresql://…``. The table ``oneturn_spent_approvals`` is created if it doesn't exist.
        clock: returns the time in seconds since 1970.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time):
        import sqlalchemy

        from oneturn.core.database import create_tables, database_engine

        self._clock = clock
        self._engine = database_engine(url)
        tables = sqlalchemy.MetaData()
        self._table = sqlalchemy.Table(
            "oneturn_spent_approvals",
            tables,
            sqlalchemy.Column("nonce", sqlalchemy.String(32), primary_key=True),
            sqlalchemy.Column("expires", sqlalchemy.BigInteger, nullable=False),
        )
        create_tables(self._engine, tables)

    def spend(self, nonce: str, expires: int) -> bool:
        """Record the use of an approval; ``False`` if it was used before."""
        import sqlalchemy.exc

        oldest = int(self._clock() - RETENTION)
        try:
            with self._engine.begin() as connection:
                connection.execute(self._table.delete().where(self._table.c.expires < oldest))
                connection.execute(self._table.insert().values(nonce=nonce, expires=expires))
        except sqlalchemy.exc.IntegrityError:
            return False
        return True
