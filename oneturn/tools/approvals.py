"""A person's approval of a tool call, requested in one response and given in the next request, on any replica.

The next request carries all state in its items: the question, the finished calls and the waiting call. The id of the
approval request contains their signature and the expiry time, so that they can't be forged or changed. A ledger records
used approvals, so that none is used twice.
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
from dataclasses import dataclass
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
    """Records used approvals in memory, for a single replica. Several replicas share a :class:`DatabaseLedger`."""

    def __init__(self) -> None:
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()

    def spend(self, nonce: str, expires: int) -> bool:
        """Note that an approval is used now; ``False`` if it had been."""
        with self._lock:
            now = time.time()
            self._spent = {spent: until for spent, until in self._spent.items() if until >= now}
            if nonce in self._spent:
                return False
            self._spent[nonce] = expires
            return True


class DatabaseLedger:
    """Records used approvals in a database shared by all replicas; only the first insert of an approval succeeds.

    Args:
        url: an SQLAlchemy URL, such as ``sqlite:///approvals.db`` or ``postgresql+psycopg://…``. The table
            ``oneturn_spent_approvals`` is created if it doesn't exist.
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
    """Build the configured approvals; ``None`` if no key is configured.

    Raises:
        ConfigError: the environment variable for the key isn't set, or the key is too short.
    """
    if config.key_env is None:
        return None
    key = os.environ.get(config.key_env)
    if not key:
        raise ConfigError(
            f"The environment variable {config.key_env} (approvals.key_env) isn't set. Set it to the signing key."
        )
    ledger = DatabaseLedger(config.ledger) if config.ledger else None
    return Approvals(key, seconds=config.seconds, ledger=ledger)


@dataclass(frozen=True)
class VerifiedApproval:
    """An approval with a valid signature, which :meth:`Approvals.spend` records as used.

    Attributes:
        nonce: its number used once.
        expires: when it expires, in seconds since 1970.
    """

    nonce: str
    expires: int


class Approvals:
    """Signs approval requests and verifies the responses.

    Args:
        key: the signing key, at least 32 characters, the same for all replicas.
        seconds: seconds until an approval request expires.
        ledger: records used approvals; ``None`` for a :class:`MemoryLedger`.
        clock: returns the time in seconds since 1970.

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
                f"The signing key for approvals has {len(key)} characters; it needs {_KEY_CHARS} or more. Generate one "
                "with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        self._key = key.encode()
        self._seconds = seconds
        self._ledger = ledger or MemoryLedger()
        self._clock = clock

    def request_id(self, inputs: Mapping[str, Any], finished: Sequence[FinishedCall], waiting: WaitingCall) -> str:
        """Return the id of an approval request: its expiry time, a nonce, and a signature of the inputs and calls."""
        expires, nonce = int(self._clock() + self._seconds), secrets.token_hex(8)
        return f"{_PREFIX}{expires}_{nonce}_{self._signature(expires, nonce, inputs, finished, waiting)}"

    def spend(self, approval: VerifiedApproval) -> None:
        """Record the use of a verified approval, just before its call is run.

        Raises:
            RequestError: the request was answered before.
        """
        if not self._ledger.spend(approval.nonce, approval.expires):
            raise RequestError("The approval request was answered before. Send the question again.")

    def verify(
        self, id: str, inputs: Mapping[str, Any], finished: Sequence[FinishedCall], waiting: WaitingCall
    ) -> VerifiedApproval:
        """Verify an approval response without recording its use.

        Raises:
            RequestError: the request id is unknown, or belongs to other inputs or calls; or it has expired.
        """
        try:
            expiry, nonce, signature = id.removeprefix(_PREFIX).split("_", 2)
            expires = int(expiry)
        except ValueError:
            raise RequestError(f"{id!r} isn't an approval request of this agent.") from None
        if not hmac.compare_digest(signature, self._signature(expires, nonce, inputs, finished, waiting)):
            raise RequestError(
                "The approval doesn't match: it was requested for another call, or earlier items were changed. Send "
                "the items of the conversation back unchanged, with the same custom_inputs."
            )
        if self._clock() > expires:
            raise RequestError("The approval request has expired. Send the question again.")
        return VerifiedApproval(nonce, expires)

    def _signature(self, expires: int, nonce: str, *signed: Any) -> str:
        inputs, finished, waiting = signed
        payload = [
            expires,
            nonce,
            dict(inputs),
            [call.to_json() for call in finished],
            waiting.to_json(),
        ]
        text = json.dumps(plain(payload), sort_keys=True, ensure_ascii=False)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
