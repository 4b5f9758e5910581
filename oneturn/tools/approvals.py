"""A person's approval of a tool call, requested in one response and given in the next request, on any replica.

The next request carries all state in its items: the question, the finished calls and the waiting call. The id of the
approval request contains their signature and the expiry time, so that they can't be forged or changed. A ledger records
used approvals, so that none is used twice.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oneturn.config import ApprovalsConfig
from oneturn.core.serialization import canonical_json
from oneturn.core.steps import FinishedCall, WaitingCall, source
from oneturn.errors import ConfigError, RequestError
from oneturn.tools.ledger import DatabaseLedger, Ledger, MemoryLedger

_KEY_CHARS = 32
_KEY_DIFFERENT_CHARS = 10
_MINT = "Generate one with: python -c 'import secrets; print(secrets.token_hex(32))'"
_PART = 20  # hex digits of the signature of a thought or of the sources of one call: 80 bits
_ID = re.compile(
    rf"mcpr_(?P<expires>[1-9][0-9]{{0,14}})_(?P<nonce>[0-9a-f]{{16}})"
    rf"_(?P<thoughts>(?:[0-9a-f]{{{_PART}}})*)_(?P<sources>(?:[0-9a-f]{{{_PART}}})*)_(?P<signature>[0-9a-f]{{64}})"
)
_MISMATCH = (
    "The approval doesn't match: it was requested for another call, or earlier items were changed. Send the items of "
    "the conversation back unchanged, with the same custom_inputs."
)


def build_approvals(config: ApprovalsConfig, agent: str = "") -> Approvals | None:
    """Build the configured approvals; ``None`` if no key is configured.

    The values of environment variables are read only when something is signed, or by :meth:`Approvals.open`.

    Args:
        config: names the variables.
        agent: the agent's configured name, which is part of what is signed.
    """
    if config.key_env is None:
        return None
    ledger = _configured_ledger(config) if config.ledger or config.ledger_env else None
    return Approvals(key_env=config.key_env, agent=agent, seconds=config.seconds, ledger=ledger)


def _configured_ledger(config: ApprovalsConfig) -> Callable[[], Ledger]:
    def connect() -> Ledger:
        address = config.ledger or os.environ.get(str(config.ledger_env))
        if not address:
            raise ConfigError(
                f"The environment variable {config.ledger_env} (approvals.ledger_env) isn't set. Set it to the address "
                "of the database that records used approvals."
            )
        import sqlalchemy.exc

        try:
            return DatabaseLedger(address)
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:  # its text may repeat the address
            where = "approvals.ledger" if config.ledger else f"{config.ledger_env} (approvals.ledger_env)"
            raise ConfigError(
                f"The database in {where} can't be opened ({type(error).__name__}). Check that it is an SQLAlchemy "
                "URL, that its driver is installed, and that the database can be reached."
            ) from None

    return connect


@dataclass(frozen=True)
class VerifiedApproval:
    """An approval with a valid signature, which :meth:`Approvals.spend` records as used.

    Attributes:
        nonce: its number used once.
        expires: when it expires, in seconds since 1970.
        sources_dropped: whether the client left out sources of finished calls.
    """

    nonce: str
    expires: int
    sources_dropped: bool = False


class Approvals:
    """Signs approval requests and verifies the responses.

    A signature covers the agent's name, the inputs, the finished calls with their results, and the waiting call with
    its tool's schema. Numbers are signed by value: ``150.0`` and ``150`` are the same. Thoughts and sources of finished
    calls are signed apart, because clients drop fields that they don't know: a run resumes without them, but not with
    altered ones.

    Args:
        key: the signing key, the same for all replicas: at least 32 characters, 10 of them different.
        key_env: instead of ``key``, the environment variable that holds it; read when the first approval is signed.
        agent: the agent's configured name, the same for all its versions.
        seconds: seconds until an approval request expires.
        ledger: records used approvals, or a function that connects to it when the first approval is used; ``None``
            for a :class:`oneturn.tools.MemoryLedger`.
        clock: returns the time in seconds since 1970.

    Raises:
        ConfigError: the key is too weak, or there is not exactly one of ``key`` and ``key_env``.
    """

    def __init__(
        self,
        key: str | None = None,
        *,
        key_env: str | None = None,
        agent: str = "",
        seconds: float = 3600,
        ledger: Ledger | Callable[[], Ledger] | None = None,
        clock: Callable[[], float] = time.time,
    ):
        if (key is None) == (key_env is None):
            raise ConfigError("Approvals needs either a key, or key_env, the environment variable that holds it.")
        self._key = None if key is None else _check_key(key, "for approvals")
        self._key_env = key_env
        self._agent = agent
        self._seconds = seconds
        self._ledger: Ledger | Callable[[], Ledger] = ledger or MemoryLedger(clock)
        self._connecting = threading.Lock()
        self._clock = clock

    @property
    def missing_key_env(self) -> str | None:
        """The environment variable that should hold the key, if it isn't set; otherwise ``None``."""
        missing = self._key is None and not os.environ.get(str(self._key_env))
        return self._key_env if missing else None

    @classmethod
    def temporary(cls) -> Approvals:
        """Return approvals with a new random key: they are valid only in this process."""
        return cls(secrets.token_hex(32))

    def use_temporary_key(self) -> None:
        """Sign with a new random key: the approvals of this process are valid only in this process."""
        self._key = secrets.token_hex(32).encode()

    def open(self) -> None:
        """Read the key and connect to the ledger now, not when the first approval is signed and used.

        Raises:
            ConfigError: the key or the ledger's address is missing or invalid, or the ledger can't be reached.
        """
        self._secret()
        self._connect()

    def request_id(
        self,
        inputs: Mapping[str, Any],
        finished: Sequence[FinishedCall],
        waiting: WaitingCall,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the id of an approval request: expiry time, nonce and signatures.

        Args:
            inputs: the program's inputs.
            finished: the calls made before.
            waiting: the call that needs approval.
            schema: the arguments of its tool, as JSON schemas.
        """
        expires, nonce = self.expiry(), secrets.token_hex(8)
        thoughts = "".join(self._parts(nonce, "thought", _thoughts(finished, waiting)))
        sources = "".join(self._parts(nonce, "sources", _sources(finished)))
        head = f"mcpr_{expires}_{nonce}_{thoughts}_{sources}"
        return f"{head}_{self._signature(head, inputs, finished, waiting, schema)}"

    def verify(
        self,
        id: str,
        inputs: Mapping[str, Any],
        finished: Sequence[FinishedCall],
        waiting: WaitingCall,
        schema: Mapping[str, Any] | None = None,
    ) -> VerifiedApproval:
        """Verify an approval response without recording its use.

        Raises:
            RequestError: the request id is unknown, or belongs to another agent, other inputs or calls; or it has
                expired.
        """
        match = _ID.fullmatch(id)
        if match is None:
            raise RequestError(f"{id!r:.80} isn't an approval request of this agent.")
        head, _, signature = id.rpartition("_")
        if not hmac.compare_digest(signature, self._signature(head, inputs, finished, waiting, schema)):
            raise RequestError(_MISMATCH)
        nonce, expires = match["nonce"], int(match["expires"])
        self._match_parts(match["thoughts"], self._parts(nonce, "thought", _thoughts(finished, waiting)))
        dropped = self._match_parts(match["sources"], self._parts(nonce, "sources", _sources(finished)))
        if self.has_expired(expires):
            raise RequestError("The approval request has expired. Send the question again.")
        return VerifiedApproval(nonce, expires, sources_dropped=dropped)

    def spend(self, approval: VerifiedApproval) -> None:
        """Record the use of a verified approval, just before its call is run.

        Raises:
            RequestError: the request was answered before.
        """
        if not self._connect().spend(approval.nonce, approval.expires):
            raise RequestError("The approval request was answered before. Send the question again.")

    def _signature(
        self,
        head: str,
        inputs: Mapping[str, Any],
        finished: Sequence[FinishedCall],
        waiting: WaitingCall,
        schema: Mapping[str, Any] | None,
    ) -> str:
        calls = [[call.name, call.args, call.output] for call in finished]
        return self._mac(["approval", head, self._agent, inputs, calls, waiting.name, waiting.args, schema])

    def _parts(self, nonce: str, kind: str, values: Iterable[Any]) -> list[str]:
        """Sign each value that isn't empty, with its position."""
        return [self._mac([kind, nonce, index, value])[:_PART] for index, value in enumerate(values) if value]

    @staticmethod
    def _match_parts(signed: str, present: Sequence[str]) -> bool:
        """Whether parts were left out.

        Raises:
            RequestError: a part is present that isn't among the signed ones.
        """
        known = [signed[start : start + _PART] for start in range(0, len(signed), _PART)]
        if not all(any(hmac.compare_digest(part, other) for other in known) for part in present):
            raise RequestError(_MISMATCH)
        return len(present) < len(known)

    def expiry(self) -> int:
        """Return when what is signed now expires, in seconds since 1970."""
        return int(self._clock() + self._seconds)

    def has_expired(self, expires: int) -> bool:
        """Return whether this time has passed."""
        return self._clock() > expires

    def digest(self, payload: list[Any]) -> bytes:
        """Return the signature of a value for this agent. The first element says what is signed."""
        return hmac.new(self._secret(), canonical_json([*payload, self._agent]), "sha256").digest()

    def _mac(self, payload: list[Any]) -> str:
        return hmac.new(self._secret(), canonical_json(payload), "sha256").hexdigest()

    def _connect(self) -> Ledger:
        with self._connecting:
            if callable(self._ledger):
                self._ledger = self._ledger()
            return self._ledger

    def _secret(self) -> bytes:
        if self._key is None:
            self._key = _key_from(str(self._key_env))
        return self._key


def _thoughts(finished: Sequence[FinishedCall], waiting: WaitingCall) -> list[str]:
    return [call.thought for call in (*finished, waiting)]


def _sources(finished: Sequence[FinishedCall]) -> list[list[dict[str, str]]]:
    return [[source(document) for document in call.documents] for call in finished]


def _key_from(variable: str) -> bytes:
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(
            f"The environment variable {variable} (approvals.key_env) isn't set. Set it to the signing key. {_MINT}"
        )
    return _check_key(key, f"in {variable} (approvals.key_env)")


def _check_key(key: str, where: str) -> bytes:
    if weakness := weakness_of(key):
        raise ConfigError(f"The signing key {where} {weakness}. {_MINT}")
    return key.encode()


def weakness_of(key: str) -> str | None:
    """Say why a signing key is too weak; ``None`` if it isn't."""
    different = len(set(key))
    if len(key) >= _KEY_CHARS and different >= _KEY_DIFFERENT_CHARS:
        return None
    needed = f"it needs {_KEY_CHARS} or more, {_KEY_DIFFERENT_CHARS} of them different"
    return f"has {len(key)} characters, {different} of them different; {needed}"
