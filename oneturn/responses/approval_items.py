"""A request that answers an approval request, as the point where its run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow.entities import Document
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.core.steps import FinishedCall, Resumption, WaitingCall
from oneturn.errors import RequestError
from oneturn.responses.request import APPROVAL, no_verdict

Item = Mapping[str, Any]


@dataclass(frozen=True)
class ApprovalAnswer:
    """What a person said of an approval request, with all that its run had done. Nothing of it has been checked yet."""

    request_id: str
    resumption: Resumption


def read_answer(request: ResponsesAgentRequest) -> ApprovalAnswer | None:
    """The approval that a request ends with; ``None`` if it doesn't end with one.

    Raises:
        RequestError: it says neither true nor false, the approval request itself isn't among the items, or they can't
            be read.
    """
    items = [item.model_dump() for item in request.input]
    if not items or items[-1].get("type") != APPROVAL:
        return None
    answer, turn = items[-1], _turn(items[:-1])
    approve = answer.get("approve")
    if not isinstance(approve, bool):  # MLflow keeps what was sent: a text such as "false" is true to Python
        raise RequestError(no_verdict(answer))
    wanted = str(answer.get("approval_request_id"))
    waiting = next((item for item in turn if item.get("type") == "mcp_approval_request" and item["id"] == wanted), None)
    if waiting is None:
        raise RequestError(f"The approval request {wanted!r} isn't among the items; send them back as they came.")
    resumption = Resumption(
        *_read(turn, waiting),
        approve=approve,
        reason=" ".join(str(answer.get("reason") or "").split()),
    )
    return ApprovalAnswer(wanted, resumption)


def read_waiting(
    request: ResponsesAgentRequest, output: Sequence[Item], item: Item
) -> tuple[WaitingCall, tuple[FinishedCall, ...]]:
    """What will be read of the request that answers ``item``: the call that waits, and those that were finished.

    Args:
        request: what was asked.
        output: the items that came back before.
        item: the approval request.
    """
    return _read(_turn([*(given.model_dump() for given in request.input), *output]), item)


def _turn(items: list[Any]) -> list[Item]:
    asked = [place for place, item in enumerate(items) if item.get("role") == "user"]
    return items[asked[-1] if asked else 0 :]


def _read(turn: list[Item], waiting: Item) -> tuple[WaitingCall, tuple[FinishedCall, ...]]:
    thought, finished = _finished(turn)
    return WaitingCall(str(waiting["name"]), _arguments(waiting), thought), tuple(finished)


def _finished(items: Iterable[Item]) -> tuple[str, list[FinishedCall]]:
    """The thought that no call followed, and the calls that were made, in their order."""
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
        found = json.loads(item["arguments"])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RequestError(f"The arguments of {item.get('name')!r} aren't a JSON object; send items back as they came.")
    return found


def _document(source: Any) -> Document:
    if not isinstance(source, Mapping):
        raise RequestError("A function_call_output's sources aren't as they came.")
    metadata = {"title": source.get("title"), "doc_uri": source.get("url")}
    return Document(page_content="", metadata=metadata, id=str(source.get("id")))
