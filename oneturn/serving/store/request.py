"""What requests of a server use of its response store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers

from oneturn.config import ServeConfig
from oneturn.responses.dialects import DialectName
from oneturn.serving.access import ClientIdentity
from oneturn.serving.store.conversation import StoredConversation
from oneturn.serving.store.database import StoreDatabase, build_store
from oneturn.serving.store.idempotency import HEADER, IdempotencyKeys, IdempotentRequest
from oneturn.serving.store.responses import ResponseStore


def build_storage(settings: ServeConfig, max_size: int) -> RequestStorage | None:
    """Return the configured store, as requests use it; ``None`` if there is none.

    Args:
        settings: the server's settings.
        max_size: how many characters the items of a conversation may have.

    Raises:
        ConfigError: an environment variable isn't set, or the address in it is invalid.
    """
    database = build_store(settings)
    return None if database is None else RequestStorage(database, ClientIdentity(settings.api_key()), max_size)


class RequestStorage:
    """A server's store, as requests use it.

    Args:
        database: the store's database.
        identity: tells clients apart.
        max_size: how many characters the items of a conversation may have.

    Attributes:
        responses: the stored responses.
        keys: the idempotency keys.
    """

    def __init__(self, database: StoreDatabase, identity: ClientIdentity, max_size: int):
        self.responses = ResponseStore(database)
        self.keys = IdempotencyKeys(database)
        self._identity = identity
        self._max_size = max_size

    def owner(self, headers: Headers) -> str:
        """Return whose responses a request may use."""
        return self._identity.of(headers)

    def conversation(
        self, dialect: DialectName, headers: Headers, body: Mapping[str, Any]
    ) -> StoredConversation | None:
        """Return the stored conversation of a request; ``None`` in MLflow's dialect, whose clients know no store.

        Raises:
            AgentError: a field of the store has a wrong type.
        """
        if dialect != "open_responses":
            return None
        return StoredConversation(self.responses, self.owner(headers), body, self._max_size)

    def idempotent(self, path: str, headers: Headers, body: Mapping[str, Any]) -> IdempotentRequest | None:
        """Return the request as one with an idempotency key; ``None`` if it has none.

        Raises:
            AgentError: the key is invalid.
        """
        key = headers.get(HEADER)
        return None if key is None else self.keys.request(self.owner(headers), key, path, body)
