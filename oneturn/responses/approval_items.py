"""Read a request that answers an approval request: the call to approve and the state to resume from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow.entities import Document

from oneturn.core.serialization import normalise_arguments, read_json
from oneturn.core.steps import FinishedCall, Resumption, WaitingCall
from oneturn.errors import RequestError
from oneturn.responses.call_items import APPROVAL_RESPONSE
from oneturn.responses.request import describe_invalid_verdict

Item = Mapping[str, Any]
_UNCHANGED = "send all output items back unchanged."


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
        RequestError: ``approve`` isn't a boolean, the matching approval request isn't among the items, it has
            another answer, an item is malformed, or something follows the response, so that it would be ignored.
    """
    if not items or items[-1].get("type") != APPROVAL_RESPONSE:
        _refuse_ignored_answer(items)
        return None
    answer, turn = items[-1], _turn(items[:-1])
    approve = answer.get("approve")
    if not isinstance(approve, bool):  # MLflow doesn't convert it, and bool("false") is True
        raise RequestError(describe_invalid_verdict(answer))
    request_id = _text(answer, "approval_request_id")
    if any(item.get("approval_request_id") == request_id for item in turn):
        raise RequestError(f"The input answers the approval request {request_id!r:.80} twice; send one answer.")
    requests = (item for item in turn if item.get("type") == "mcp_approval_request")
    waiting = next((item for item in requests if item.get("id") == request_id), None)
    if waiting is None:
        raise RequestError(
            f"The input has no approval request {request_id!r:.80}; send all output items back unchanged."
        )
    reason = answer.get("reason") or ""
    if not isinstance(reason, str):
        raise RequestError(f"The reason of an {APPROVAL_RESPONSE} is {reason!r:.80}; send a text.")
    resumption = Resumption(*_read(turn, waiting), approve=approve, reason=" ".join(reason.split()))
    return ApprovalAnswer(request_id, resumption)


def _refuse_ignored_answer(items: Sequence[Item]) -> None:
    """Refuse an answer that isn't the last item, unless its run has ended, or a person refused and asked again."""
    answers = [index for index, item in enumerate(items) if item.get("type") == APPROVAL_RESPONSE]
    if not answers:
        return
    following = items[answers[-1] + 1 :]
    questions = [index for index, item in enumerate(following) if item.get("role") == "user"]
    if questions:
        refused = items[answers[-1]].get("approve") is False
        if refused or any(_is_output(item) for item in following[: questions[0]]):
            return
    raise RequestError(
        f"The last {APPROVAL_RESPONSE} is followed by another item, so the approved call would not be run. Send the "
        "approval as the last item, and anything else in the next request."
    )


def _is_output(item: Item) -> bool:
    return item.get("role") == "assistant" or item.get("type") in ("function_call", "function_call_output", "mcp_call")


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
    return WaitingCall(_text(waiting, "name"), _arguments(waiting), thought), tuple(finished)


def _finished(items: Iterable[Item]) -> tuple[str, list[FinishedCall]]:
    """The thought after the last call, and the calls that have an output, in order."""
    thought = ""
    calls: dict[str, FinishedCall] = {}
    done: set[str] = set()
    for item in items:
        kind = item.get("type")
        if kind == "reasoning":
            thought = "".join(_text(part, "text") for part in _mappings(item, "summary"))
        elif kind == "function_call":
            calls[_text(item, "call_id")] = FinishedCall(_text(item, "name"), _arguments(item), thought)
            thought = ""
        elif kind == "function_call_output" and (id := _text(item, "call_id")) in calls:
            documents = tuple(_document(source) for source in _mappings(item, "sources"))
            calls[id] = replace(calls[id], output=_text(item, "output"), documents=documents)
            done.add(id)
    return thought, [call for id, call in calls.items() if id in done]


def _arguments(item: Item) -> dict[str, Any]:
    """The arguments as they are signed and executed.

    Raises:
        RequestError: they aren't one JSON object in strict JSON.
    """
    try:
        arguments = read_json(_text(item, "arguments"))
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestError(f"The arguments of {_text(item, 'name')!r:.80} aren't a JSON object; {_UNCHANGED}")
    return normalise_arguments(arguments)


def _document(source: Item) -> Document:
    fields = {name: _text(source, name) for name in ("id", "title", "url")}
    return Document(page_content="", metadata={"title": fields["title"], "doc_uri": fields["url"]}, id=fields["id"])


def _text(item: Item, field: str) -> str:
    value = item.get(field)
    if not isinstance(value, str):
        raise RequestError(
            f"The {field} of {item.get('type', 'a source')!r:.80} is {value!r:.80}, no text; {_UNCHANGED}"
        )
    return value


def _mappings(item: Item, field: str) -> list[Item]:
    """A list of objects, which clients may leave out."""
    value = item.get(field) or []
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise RequestError(f"The {field} of {item.get('type')!r} is no list of objects; {_UNCHANGED}")
    return value
