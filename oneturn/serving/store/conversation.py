"""What one request takes from the response store, and leaves there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from oneturn.errors import AgentError
from oneturn.serving.http_errors import invalid_request
from oneturn.serving.store.endpoints import RESPONSE_ID
from oneturn.serving.store.responses import ResponseStore, not_found

_MAX_REFERENCES = 10_000


class StoredConversation:
    """The conversation of one request: earlier items come from the store, and the response is saved there.

    Args:
        store: the stored responses.
        owner: who sends the request.
        body: the request's body.
        max_size: how many characters the items of the conversation may have.

    Raises:
        AgentError: ``store`` or ``previous_response_id`` has a wrong type.
    """

    def __init__(self, store: ResponseStore, owner: str, body: Mapping[str, Any], max_size: int):
        self._store = store
        self._owner = owner
        self._body = body
        self._max_size = max_size
        if not isinstance(body.get("store"), bool | None):
            raise invalid_request(f"store is {body['store']!r:.80}; send JSON true or false.", "store")
        self._keeps = body.get("store") is not False
        self._previous = body.get("previous_response_id")
        if not isinstance(self._previous, str | None):
            message = f"previous_response_id is {self._previous!r:.80}; send the id of a response."
            raise invalid_request(message, "previous_response_id")
        self._saved: list[Mapping[str, Any]] = []

    @property
    def echo(self) -> dict[str, Any]:
        """The fields of the response that show what is stored."""
        return {"store": self._keeps, "previous_response_id": self._previous}

    def request_body(self) -> dict[str, Any]:
        """Return the request's body with all items of the conversation, and without the fields of the store.

        Raises:
            AgentError: a response or an item isn't stored, a reference has no id, or the conversation is too long; or
                the store is down.
        """
        body = {k: value for k, value in self._body.items() if k not in ("store", "previous_response_id")}
        given = body.get("input")
        if self._previous is not None:
            if not RESPONSE_ID.fullmatch(self._previous):
                raise not_found(self._previous)
            earlier = self._store.conversation(self._owner, self._previous, self._max_size)
            body["input"] = [*earlier, *self._input_items()] if isinstance(given, str | list) else given
        if isinstance(body.get("input"), list):
            body["input"] = self._resolved(body["input"])
        return body

    def save(self, resource: Mapping[str, Any]) -> dict[str, Any]:
        """Save a response that has ended, if the request allows it.

        Returns:
            The response. Its ``store`` is false if it couldn't be saved, which is logged: an answer isn't thrown away
            because the store is down.
        """
        if not self._keeps:
            return dict(resource)
        self._saved += [item for item in resource["output"] if item not in self._saved]  # an agent may end twice
        try:
            whole = {**resource, "output": self._saved}
            self._store.save(self._owner, whole, self._input_items(), self._previous)
        except AgentError:
            return {**resource, "store": False}
        return dict(resource)

    def delete_expired(self) -> None:
        """Delete some of what has expired; a store that is down is logged."""
        if self._keeps:
            try:
                self._store.delete_expired()
            except AgentError:
                return

    def _input_items(self) -> list[Any]:
        """The items of the request itself. References stay references: a deleted item is deleted here too."""
        given = self._body.get("input")
        return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else list(given or ())

    def _resolved(self, items: Sequence[Any]) -> list[Any]:
        references = {number: _reference(item, number) for number, item in enumerate(items) if _is_reference(item)}
        if not references:
            return list(items)
        if len(references) > _MAX_REFERENCES:
            raise invalid_request(f"input has {len(references)} references; send at most {_MAX_REFERENCES:,}.", "input")
        stored = self._store.items(self._owner, references.values(), self._max_size)
        for number, id in references.items():
            if id not in stored:
                message = (
                    f"input.{number}: the item {id!r:.80} isn't stored. It was made with store: false or another key, "
                    "was deleted or has expired; send the item itself."
                )
                raise AgentError(message, "item_not_found", 404, param="input")
        resolved = [stored[references[number]] if number in references else item for number, item in enumerate(items)]
        if len(references) > len(stored) and _size(resolved) > self._max_size:
            message = f"input is larger than {self._max_size:,} characters with the items it refers to."
            raise AgentError(message, "conversation_too_long", 413, param="input")
        return resolved


def _is_reference(item: Any) -> bool:
    """Whether an item refers to another: the specification lets it leave its type out."""
    if not isinstance(item, Mapping):
        return False
    return item.get("type") == "item_reference" or (item.get("type") is None and set(item) <= {"type", "id"})


def _reference(item: Mapping[str, Any], number: int) -> str:
    if not isinstance(item.get("id"), str):
        raise invalid_request(f"input.{number} is an item_reference without an id.", "input")
    return str(item["id"])


def _size(items: Sequence[Any]) -> int:
    return sum(len(json.dumps(item)) for item in items)
