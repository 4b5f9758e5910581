"""Requests with an ``Idempotency-Key``: run once, answered as often as they come.

The first request claims its key with a lease, which its process renews. Others wait until it has ended, and get its
answer. If the process dies, the lease runs out, and the next request runs.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from oneturn.core.background import KEEP_ALIVE
from oneturn.core.run_context import current_run
from oneturn.core.serialization import canonical_json
from oneturn.errors import AgentError
from oneturn.serving.http_errors import invalid_request
from oneturn.serving.store.answer import RecordedAnswer
from oneturn.serving.store.database import REQUESTS, StoreDatabase, delete_expired_requests

HEADER = "idempotency-key"

LEASE_SECONDS = 30.0
"""How long a key stays claimed after its process has died."""

KEPT_SECONDS = 86400.0
"""How long an answer is kept for a request that comes again, unless the store's time to live is shorter."""

_VALID = re.compile(r"[ -~]{1,255}")  # visible ASCII
_POLL_SECONDS = (0.05, 0.5)  # at first, at most


class IdempotencyKeys:
    """The keys in a store that this process has claimed; a thread renews their leases while there are any.

    Args:
        database: the store's database.
        lease: how long a claim lasts unless it is renewed, in seconds.
    """

    def __init__(self, database: StoreDatabase, lease: float = LEASE_SECONDS):
        self.database = database
        self.lease = lease
        self._claims: set[str] = set()
        self._lock = threading.Lock()
        self._renewing = False

    def request(self, owner: str, key: str, path: str, body: Mapping[str, Any]) -> IdempotentRequest:
        """Return a request with a key.

        Args:
            owner: whose key it is.
            key: the header's value.
            path: the request's path.
            body: its body.

        Raises:
            AgentError: the key is empty, too long or not ASCII.
        """
        if not _VALID.fullmatch(key):
            message = f"The Idempotency-Key is {key!r:.80}; send 1 to 255 visible ASCII characters."
            raise invalid_request(message, "Idempotency-Key")
        scoped = hashlib.sha256(canonical_json([owner, key])).hexdigest()
        return IdempotentRequest(self, scoped, hashlib.sha256(canonical_json([path, body])).hexdigest())

    def add(self, claim: str) -> None:
        """Renew the lease of a claim from now on."""
        with self._lock:
            self._claims.add(claim)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="oneturn-leases", daemon=True).start()

    def discard(self, claim: str) -> None:
        """Don't renew the lease of a claim any more."""
        with self._lock:
            self._claims.discard(claim)

    def renew(self) -> None:
        """Renew the leases of all claims.

        Raises:
            AgentError: the store is down.
        """
        with self._lock:
            claims = list(self._claims)
        with self.database.transaction() as connection:
            until = self.database.clock() + self.lease
            connection.execute(update(REQUESTS).where(REQUESTS.c.claim.in_(claims)).values(lease=until))

    def _renew(self) -> None:
        while True:
            time.sleep(self.lease / 3)
            with self._lock:
                if not self._claims:
                    self._renewing = False
                    return
            with suppress(AgentError):  # logged; the next attempt may succeed before the lease ends
                self.renew()


class IdempotentRequest:
    """A request with an idempotency key: claim it, run, and end it.

    Args:
        keys: the keys of this process.
        key: the key, scoped to its owner.
        fingerprint: a hash of the request.

    Attributes:
        claimed: whether this request holds the key.
    """

    def __init__(self, keys: IdempotencyKeys, key: str, fingerprint: str):
        self._keys = keys
        self._database = keys.database
        self._key = key
        self._fingerprint = fingerprint
        self._claim = secrets.token_hex(16)
        self.claimed = False

    def claim(self, on_wait: Callable[[], object]) -> RecordedAnswer | None:
        """Claim the key, or wait for the request that holds it; called in the run's thread.

        Args:
            on_wait: called when the wait begins, and every ``KEEP_ALIVE`` seconds of it.

        Returns:
            The answer that was given before; ``None`` if this request has to run.

        Raises:
            AgentError: with status 409, the key was used for another request; with 503, the store is down, or the
                server stops.
        """
        run, stopped = current_run(), threading.Event()
        pause, until_sign = _POLL_SECONDS[0], 0.0
        with run.waking(stopped.set):
            while True:
                answer = self._try()
                if answer is not None or self.claimed:
                    return answer
                if run.reason is not None:
                    message = "The server stopped while an earlier request with this Idempotency-Key was running."
                    raise AgentError(message, "shutting_down", 503, 1.0, retryable=True)
                if until_sign <= 0:
                    on_wait()
                    until_sign = KEEP_ALIVE
                stopped.wait(pause)
                until_sign -= pause
                pause = min(2 * pause, _POLL_SECONDS[1])

    def end(self, answer: RecordedAnswer | None) -> None:
        """Keep the answer for later requests with the key, if this request still holds it, or give the key up.

        Some of the answers that have expired are deleted. While the store is down, which is logged, nothing happens:
        the key is free when its lease ends.

        Args:
            answer: the answer; ``None``, or one that asks for another attempt, lets the next request run.
        """
        self._keys.discard(self._claim)
        change: Any = delete(REQUESTS)
        if answer is not None and not answer.is_retryable:
            expires = int(self._database.clock() + min(KEPT_SECONDS, self._database.ttl))
            kept = {"answer": answer.encode(), "response_id": answer.response_id, "expires": expires}
            change = update(REQUESTS).values(**kept)
        with suppress(AgentError), self._database.transaction() as connection:
            connection.execute(change.where(REQUESTS.c.key == self._key, REQUESTS.c.claim == self._claim))
            delete_expired_requests(connection, self._database.clock())

    def _try(self) -> RecordedAnswer | None:
        """Claim the key if it is free; otherwise return its answer, or ``None`` while it has none."""
        now = self._database.clock()
        own = {"claim": self._claim, "lease": now + self._keys.lease, "expires": int(now + KEPT_SECONDS)}
        with self._database.transaction() as connection:
            row = connection.execute(select(REQUESTS).where(REQUESTS.c.key == self._key)).first()
            if row is not None and row.expires <= now:
                connection.execute(delete(REQUESTS).where(REQUESTS.c.key == self._key, REQUESTS.c.claim == row.claim))
                row = None
        if row is None:
            try:
                with self._database.transaction() as connection:
                    connection.execute(insert(REQUESTS).values(key=self._key, fingerprint=self._fingerprint, **own))
            except IntegrityError:
                return None  # another request was first
            self._hold()
            return None
        if row.fingerprint != self._fingerprint:
            message = "The Idempotency-Key was used for another request; send a new key for a new request."
            raise AgentError(message, "idempotency_key_reused", 409, param="Idempotency-Key")
        if row.answer is not None:
            return RecordedAnswer.decode(row.answer)
        if row.lease > now:
            return None
        expired = REQUESTS.c.key == self._key, REQUESTS.c.claim == row.claim, REQUESTS.c.lease == row.lease
        with self._database.transaction() as connection:
            taken = connection.execute(update(REQUESTS).where(*expired, REQUESTS.c.answer.is_(None)).values(**own))
        if taken.rowcount:
            self._hold()
        return None

    def _hold(self) -> None:
        self.claimed = True
        self._keys.add(self._claim)
