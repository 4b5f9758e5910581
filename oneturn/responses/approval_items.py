"""Read a request that answers an approval request: the call to approve and the state to resume from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from oneturn.core.steps import FinishedCall, Resumption, WaitingCall
from oneturn.errors import RequestError
from oneturn.responses.call_items import APPROVAL_RESPONSE
from oneturn.responses.content import Item
from oneturn.responses.request import describe_invalid_verdict
from oneturn.responses.turn_calls import OwnTools, arguments_of, read_calls, text_of
from oneturn.responses.turns import turn_start


@dataclass(frozen=True)
class ApprovalAnswer:
    """A person's answer to an approval request, with the state of its run. The signature isn't verified yet."""

    request_id: str
    waiting: WaitingCall
    resumption: Resumption


def read_answer(items: Sequence[Item], own: OwnTools) -> ApprovalAnswer | None:
    """Read the approval response that the input items of a request end with.

    Args:
        items: the input items.
        own: the agent's own tools.

    Returns:
        The response; ``None`` if the last item isn't one.

    Raises:
        RequestError: ``approve`` isn't a boolean, the matching approval request isn't among the items, it has
            another answer, an item is malformed, or something follows the response, so that it would be ignored.
    """
    if not items or items[-1].get("type") != APPROVAL_RESPONSE:
        _refuse_ignored_answer(items)
        return None
    answer, turn = items[-1], items[turn_start(items[:-1]) : -1]
    approve = answer.get("approve")
    if not isinstance(approve, bool):  # MLflow doesn't convert it, and bool("false") is True
        raise RequestError(describe_invalid_verdict(answer))
    request_id = text_of(answer, "approval_request_id")
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
    call, finished = _read(turn, waiting, own)
    return ApprovalAnswer(request_id, call, Resumption(call, finished, approve, " ".join(reason.split())))


def without_denials(items: Sequence[Item]) -> list[int]:
    """Return the positions of the items without outputs that only repeat a refusal.

    Behind the answer that refuses a call, Vercel's AI SDK also sends the output "Tool call execution denied." of a call
    with an id of its own. It answers no call of the input.
    """
    calls = {item.get("call_id") for item in items if item.get("type") == "function_call"}
    kept, refused = [], False
    for index, item in enumerate(items):
        is_output = item.get("type") == "function_call_output"
        if not (refused and is_output and item.get("call_id") not in calls):
            kept.append(index)
            refused = item.get("type") == APPROVAL_RESPONSE and item.get("approve") is False
    return kept


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


def read_waiting(items: Sequence[Item], waiting: Item, own: OwnTools) -> tuple[WaitingCall, tuple[FinishedCall, ...]]:
    """Read the state that an approval request must sign, as ``read_answer`` will read it from the next request.

    Args:
        items: the items before the approval request: input items, then output items.
        waiting: the approval request.
        own: the agent's own tools.

    Returns:
        The call that waits for approval, and the finished calls.
    """
    return _read(items[turn_start(items) :], waiting, own)


def _read(turn: Sequence[Item], waiting: Item, own: OwnTools) -> tuple[WaitingCall, tuple[FinishedCall, ...]]:
    calls, thought = read_calls(turn, own)
    finished = tuple(replace(each.call, same_step=False) for each in calls if each.has_output)
    return WaitingCall(text_of(waiting, "name"), arguments_of(waiting), thought), finished
