"""Calls that a run leaves to the client, and the request that brings their outputs: the state to resume from.

The next request carries all state in its items, on any replica. The outputs of the client's calls are the client's
words, as its question is. Results of the agent's own tools are not: the id of a client's call contains their signature.
Without a valid one, an own result is passed to the LM as something that the client says, and can't be cited.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oneturn.core.steps import FinishedCall, Resumption, source
from oneturn.errors import RequestError
from oneturn.responses.content import Item
from oneturn.responses.turn_calls import OwnTools, TurnCall, read_calls
from oneturn.responses.turns import is_answer, turn_start
from oneturn.tools.approvals import Approvals

_PREFIX = "call_"
_ID = re.compile(rf"{_PREFIX}[\w-]{{59}}", re.ASCII)  # 64 characters: the specification takes no more
_EXPIRES, _NONCE, _PART = 4, 4, 12  # bytes
_APPROVALS = ("mcp_approval_request", "mcp_approval_response")
_STATE = ("function_call", "function_call_output", "reasoning", *_APPROVALS)


@dataclass(frozen=True)
class ResumedTurn:
    """The turn of a request that brings outputs of the client's calls.

    Attributes:
        resumption: the state that its run resumes from.
        items: the input items without what nothing proves, for the signatures of the resumed run.
    """

    resumption: Resumption
    items: tuple[Item, ...]


def has_outputs(items: Sequence[Item], own: OwnTools) -> bool:
    """Return whether the last turn of a request has outputs of the client's calls, without an answer or an approval
    after them. A system message, reasoning, or what the user has added may follow.

    Raises:
        RequestError: an output answers no call, or a call of the client has no output and the user hasn't gone on.
    """
    turn = items[turn_start(items) :]
    names = {item.get("call_id"): item.get("name") for item in turn if item.get("type") == "function_call"}
    outputs = [index for index, item in enumerate(turn) if item.get("type") == "function_call_output"]
    outputs = [index for index in outputs if names.get(turn[index].get("call_id")) not in own]
    asked = max((index for index, item in enumerate(turn) if item.get("role") == "user"), default=0)
    # A client that shortens its history may leave the output of a call that it has dropped.
    outputs = [index for index in outputs if index > asked or turn[index].get("call_id") in names]
    if not outputs or any(is_answer(item) or item.get("type") in _APPROVALS for item in turn[outputs[-1] :]):
        return False
    if orphans := [turn[index].get("call_id") for index in outputs if turn[index].get("call_id") not in names]:
        raise RequestError(
            f"The output of the call {orphans[0]!r:.80} answers no function_call of the turn; send all output items "
            "back, then the outputs of their calls."
        )
    calls, _ = read_calls(turn, own)
    if missing := [each for each in calls if each.call.by_client and not each.has_output and each.index > asked]:
        raise RequestError(
            f"The input has no output of the call {missing[0].call_id!r:.80} of {missing[0].call.name!r:.80}; send a "
            "function_call_output for each function_call."
        )
    return True


def without_state(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the input items of a request without calls, results and thoughts of the turn, which nothing proves."""
    start = turn_start(items)
    return (*items[:start], *(item for item in items[start:] if item.get("type") not in _STATE))


def sign_call(items: Sequence[Item], inputs: Mapping[str, Any], own: OwnTools, key: Approvals) -> str:
    """Return the id of a call that the client has to make: it signs the results of own tools before it.

    Args:
        items: the items before the call: input items, then output items.
        inputs: the program's inputs.
        own: the agent's own tools.
        key: signs.
    """
    calls, thought = read_calls(items[turn_start(items) :], own)
    head = key.expiry().to_bytes(_EXPIRES, "big") + secrets.token_bytes(_NONCE)
    parts = _parts(head, inputs, calls, thought, key)
    return _PREFIX + base64.urlsafe_b64encode(head + b"".join(parts)).decode().rstrip("=")


def read_outputs(
    items: Sequence[Item], inputs_before: Callable[[int], Mapping[str, Any]], own: OwnTools, key: Approvals
) -> ResumedTurn:
    """Read the state of a run that left calls to the client.

    Args:
        items: the input items, which have outputs of the client's calls; see :func:`has_outputs`.
        inputs_before: returns the program's inputs as the messages before a position give them. What the user or the
            client has added after a call wasn't there when it was signed.
        own: the agent's own tools.
        key: verifies what an earlier response has signed.

    Raises:
        RequestError: an item is malformed.
    """
    start = turn_start(items)
    turn = items[start:]
    calls, _ = read_calls(turn, own)
    last = max(each.index for each in calls if each.call.by_client)
    signed_id = str(turn[last]["call_id"])
    before, thought = read_calls(turn[:last], own)
    results, sources, thoughts = _verify(signed_id, inputs_before(start + last), before, thought, key)

    signed = {each.call_id: each for each in before if each.has_output and not each.call.by_client} if results else {}

    finished: list[FinishedCall] = []
    unverified: list[FinishedCall] = []
    for each in calls:
        proven = each.call.by_client or each.call_id in signed
        call = signed.get(each.call_id, each).call  # never an output that follows the signature
        call = call if thoughts else replace(call, thought="")
        call = call if sources else replace(call, documents=())
        if each.has_output:
            (finished if proven else unverified).append(call)
    resumption = Resumption(
        waiting=None,
        finished=tuple(finished),
        sources_dropped=not sources,
        unverified=tuple(unverified),
    )
    clients = {each.call_id for each in calls if each.call.by_client and each.call_id not in signed}
    kept = (
        _kept(item, clients | signed.keys(), own, sources, thoughts)
        if index <= last
        else _kept(item, clients, own, sources, False)
        for index, item in enumerate(turn)
    )
    return ResumedTurn(resumption, (*items[:start], *(item for item in kept if item is not None)))


def read_again(
    items: Sequence[Item],
    until: int,
    inputs_before: Callable[[int], Mapping[str, Any]],
    own: OwnTools,
    key: Approvals,
) -> tuple[Item, ...]:
    """Return the items as the request that began the last run had them: without what nothing proved then.

    Args:
        items: the input items of a later request.
        until: the position of an item of that run.
        inputs_before: as for :func:`read_outputs`.
        own: the agent's own tools.
        key: verifies what an earlier response has signed.

    Raises:
        RequestError: an item is malformed.
    """
    clients: set[str] = set()
    begun = 0
    for index, item in enumerate(items[:until]):
        if item.get("type") == "function_call" and item.get("name") not in own:
            clients.add(str(item.get("call_id")))
        if item.get("role") or (item.get("type") == "function_call_output" and item.get("call_id") in clients):
            begun = index + 1
    head, rest = items[:begun], items[begun:]
    kept = read_outputs(head, inputs_before, own, key).items if has_outputs(head, own) else without_state(head)
    return (*kept, *rest)


def _kept(item: Item, ids: set[str], own: OwnTools, sources: bool, thoughts: bool) -> Item | None:
    kind = item.get("type")
    if kind == "reasoning":
        return item if thoughts else None
    if kind in ("function_call", "function_call_output"):
        if item.get("call_id") not in ids:
            return None
        return item if sources else {name: value for name, value in item.items() if name != "sources"}
    return item


def _verify(
    id: str, inputs: Mapping[str, Any], calls: Sequence[TurnCall], thought: str, key: Approvals
) -> tuple[bool, bool, bool]:
    """Return whether the id of a client's call signs the own results before it, their sources, and the thoughts."""
    if not _ID.fullmatch(id):
        return False, False, False
    data = base64.urlsafe_b64decode(id.removeprefix(_PREFIX) + "=")
    head, signed = data[: _EXPIRES + _NONCE], data[_EXPIRES + _NONCE :]
    if key.has_expired(int.from_bytes(head[:_EXPIRES], "big")):
        return False, False, False
    results, sources, thoughts = (
        hmac.compare_digest(part, signed[index * _PART : (index + 1) * _PART])
        for index, part in enumerate(_parts(head, inputs, calls, thought, key))
    )
    return results, results and sources, results and thoughts


def _parts(
    head: bytes, inputs: Mapping[str, Any], calls: Sequence[TurnCall], thought: str, key: Approvals
) -> list[bytes]:
    """Sign apart what clients leave out: sources, and reasoning."""
    own = [each.call for each in calls if each.has_output and not each.call.by_client]
    results = [[call.name, call.args, call.output] for call in own]
    sources = [[source(document) for document in call.documents] for call in own]
    thoughts = [*(each.call.thought for each in calls), thought]
    payloads = {"results": [inputs, results], "sources": sources, "thoughts": thoughts}
    return [key.digest(["client call", kind, head.hex(), value])[:_PART] for kind, value in payloads.items()]
