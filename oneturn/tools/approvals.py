"""A person's yes or no to one tool call, asked for in one request and given in the next, on any replica.

What a later request needs travels in its items: the question, the finished calls, the call that waits. The id of the
approval request signs all of that, so that nothing of it can be made up or changed, and says until when it holds. That
it isn't used twice is the ledger's to know.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy
import sqlalchemy.exc

from oneturn.config import ApprovalsConfig
from oneturn.core.serialization import plain
from oneturn.core.steps import FinishedCall, WaitingCall
from oneturn.errors import ConfigError, RequestError

_PREFIX = "mcpr_"
_KEY_CHARS = 32


class Ledger(Protocol):
    """Remembers which approvals were used."""

    def spend(self, nonce: str, expires: int) -> bool:
        """Note that an approval is used now; ``False`` if it had been. ``expires`` is in seconds since 1970."""


class MemoryLedger:
    """Remembers within this process: enough for one replica. Several share a :class:`DatabaseLedger`."""

    def __init__(self) -> None:
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()

    def spend(self, nonce: str, expires: int) -> bool:
        """Note that an approval is used now; ``False`` if it had been."""
        with self._lock:
            now = time.time()
            self._spent = {known: until for known, until in self._spent.items() if until >= now}
            if nonce in self._spent:
                return False
            self._spent[nonce] = expires
            return True


class DatabaseLedger:
    """Remembers in a database that all replicas share: the first to write an approval's row has used it.

    Args:
        url: an SQLAlchemy URL, such as ``sqlite:///approvals.db`` or ``postgresql+psycopg://…``. The table
            ``oneturn_spent_approvals`` is made if it isn't there.
    """

    def __init__(self, url: str):
        self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
        self._table = sqlalchemy.Table(
            "oneturn_spent_approvals",
            sqlalchemy.MetaData(),
            sqlalchemy.Column("nonce", sqlalchemy.String(32), primary_key=True),
            sqlalchemy.Column("expires", sqlalchemy.BigInteger, nullable=False),
        )
        self._table.create(self._engine, checkfirst=True)

    def spend(self, nonce: str, expires: int) -> bool:
        """Note that an approval is used now; ``False`` if it had been."""
        try:
            with self._engine.begin() as connection:
                connection.execute(self._table.delete().where(self._table.c.expires < int(time.time())))
                connection.execute(self._table.insert().values(nonce=nonce, expires=expires))
        except sqlalchemy.exc.IntegrityError:
            return False
        return True


def build_approvals(config: ApprovalsConfig) -> Approvals | None:
    """The approvals that a configuration describes; ``None`` if it names no key.

    Raises:
        ConfigError: the variable that should hold the key isn't set, or the key is too short.
    """
    if config.key_env is None:
        return None
    key = os.environ.get(config.key_env)
    if not key:
        raise ConfigError(f"approvals.key_env names {config.key_env}, which isn't set: put the signing key there.")
    ledger = DatabaseLedger(config.ledger) if config.ledger else None
    return Approvals(key, seconds=config.seconds, ledger=ledger)


class Approvals:
    """Signs approval requests and checks what comes back.

    Args:
        key: the secret that every replica has, of at least 32 characters.
        seconds: how long an approval request holds.
        ledger: remembers which were used; ``None`` for one in this process's memory.
        clock: seconds since 1970.

    Raises:
        ConfigError: the key is too short.
    """

    def __init__(
        self,
        key: str,
        *,
        seconds: float = 3600,
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.time,
    ):
        if len(key) < _KEY_CHARS:
            raise ConfigError(
                f"The key that signs approvals has {len(key)} characters; it needs {_KEY_CHARS} or more, such as "
                "python -c 'import secrets; print(secrets.token_hex(32))' makes."
            )
        self._key = key.encode()
        self._seconds = seconds
        self._ledger = ledger or MemoryLedger()
        self._clock = clock

    def request_id(self, inputs: Mapping[str, Any], finished: Sequence[FinishedCall], waiting: WaitingCall) -> str:
        """The id of an approval request: when it expires, a number used once, and the signature of what it is about."""
        expires, nonce = int(self._clock() + self._seconds), secrets.token_hex(8)
        return f"{_PREFIX}{expires}_{nonce}_{self._signature(expires, nonce, inputs, finished, waiting)}"

    def check(self, id: str, inputs: Mapping[str, Any], finished: Sequence[FinishedCall], waiting: WaitingCall) -> None:
        """Let an answer to an approval request pass, once.

        Raises:
            RequestError: it was never asked for, or for something else; it has expired; or it was answered before.
        """
        nonce, expires = self.verify(id, inputs, finished, waiting)
        if not self._ledger.spend(nonce, expires):
            raise RequestError("The approval request was answered before. Ask again.")

    def verify(
        self, id: str, inputs: Mapping[str, Any], finished: Sequence[FinishedCall], waiting: WaitingCall
    ) -> tuple[str, int]:
        """Check an answer to an approval request without using it up; its number used once, and when it expires.

        Raises:
            RequestError: it was never asked for, or for something else; or it has expired.
        """
        try:
            told, nonce, signature = id.removeprefix(_PREFIX).split("_", 2)
            expires = int(told)
        except ValueError:
            raise RequestError(f"{id!r} is no approval request of this agent.") from None
        if not hmac.compare_digest(signature, self._signature(expires, nonce, inputs, finished, waiting)):
            raise RequestError(
                "The approval doesn't fit: it was asked for another call, or something before it was changed. Send the "
                "items of the conversation back as they came, with the same custom_inputs."
            )
        if self._clock() > expires:
            raise RequestError("The approval request has expired. Ask again.")
        return nonce, expires

    def _signature(self, expires: int, nonce: str, *about: Any) -> str:
        inputs, finished, waiting = about
        told = [
            expires,
            nonce,
            dict(inputs),
            [call.to_json() for call in finished],
            waiting.to_json(),
        ]
        text = json.dumps(plain(told), sort_keys=True, ensure_ascii=False)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
