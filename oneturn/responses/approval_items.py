"""Read a request that answers an approval request: the call to approve and the state to resume from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow.entities import Document

from oneturn.core.steps import FinishedCall, Resumption, WaitingCall
from oneturn.errors import RequestError
from oneturn.responses.request import APPROVAL_RESPONSE, describe_invalid_verdict

Item = Mapping[str, Any]


@dataclass(frozen=True)
class ApprovalAnswer:
    """A person's answer to an approval request, with the state of its run. The signature isn't verified yet."""

    request_id: str
    resumption: Resumption


def read_answer(items: Sequence[Item]) -> ApprovalAnswer | None:
    """Read the approval response that the input items of a request end with.

    Returns:
        The response; ``None`` if the last item isn't one.

    Raises:
        RequestError: ``approve`` isn't a boolean, the matching approval request isn't among the items, or an item
            is malformed.
    """
    if not items or items[-1].get("type") != APPROVAL_RESPONSE:
        return None
    answer, turn = items[-1], _turn(items[:-1])
    approve = answer.get("approve")
    if not isinstance(approve, bool):  # MLflow doesn't convert it, and bool("false") is True
        raise RequestError(describe_invalid_verdict(answer))
    request_id = str(answer.get("approval_request_id"))
    requests = (item for item in turn if item.get("type") == "mcp_approval_request")
    waiting = next((item for item in requests if item["id"] == request_id), None)
    if waiting is None:
        raise RequestError(f"The input has no approval request {request_id!r}; send all output items back unchanged.")
    resumption = Resumption(
        *_read(turn, waiting),
        approve=approve,
        reason=" ".join(str(answer.get("reason") or "").split()),
    )
    return ApprovalAnswer(request_id, resumption)


def read_waiting(items: Sequence[Item], waiting: Item) -> tuple[WaitingCall, tuple[FinishedCall, ...]]:
    """Read the state that an approval request must sign, as ``read_answer`` will read it from the next request.

    Args:
        items: the items before the approval request: input items, then output items.
        waiting: the approval request.

    Returns:
        The call that waits for approval, and the finished calls.
    """
    return _read(_turn(items), waiting)


def _turn(items: Sequence[Item]) -> Sequence[Item]:
    """The items from the last user message on."""
    indexes = [index for index, item in enumerate(items) if item.get("role") == "user"]
    return items[indexes[-1] if indexes else 0 :]


def _read(turn: Sequence[Item], waiting: Item) -> tuple[WaitingCall, tuple[FinishedCall, ...]]:
    thought, finished = _finished(turn)
    return WaitingCall(str(waiting["name"]), _arguments(waiting), thought), tuple(finished)


def _finished(items: Iterable[Item]) -> tuple[str, list[FinishedCall]]:
    """The thought after the last call, and the calls that have an output, in order."""
    thought = ""
    calls: dict[str, FinishedCall] = {}
    done: set[str] = set()
    for item in items:
        kind, id = item.get("type"), str(item.get("call_id"))
        if kind == "reasoning":
            thought = "".join(str(part.get("text") or "") for part in item.get("summary") or [])
        elif kind == "function_call":
            calls[id] = FinishedCall(str(item["name"]), _arguments(item), thought)
            thought = ""
        elif kind == "function_call_output" and id in calls:
            documents = tuple(_document(source) for source in item.get("sources") or [])
            calls[id] = replace(calls[id], output=str(item["output"]), documents=documents)
            done.add(id)
    return thought, [call for id, call in calls.items() if id in done]


def _arguments(item: Item) -> dict[str, Any]:
    try:
        arguments = json.loads(item["arguments"])
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        name = item.get("name")
        raise RequestError(f"The arguments of {name!r} aren't a JSON object; send all output items back unchanged.")
    return arguments


def _document(source: Any) -> Document:
    if not isinstance(source, Mapping):
        raise RequestError("A source of a function_call_output isn't an object; send all output items back unchanged.")
    metadata = {"title": source.get("title"), "doc_uri": source.get("url")}
    return Document(page_content="", metadata=metadata, id=str(source.get("id")))
