"""Check a response without a stream, and compare it with a stream."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from oneturn.conformance.endings import check_error, check_reason, check_usage
from oneturn.conformance.events import done_items, is_draft, mapping, objects, same, to_mapping
from oneturn.conformance.items import check_calls
from oneturn.conformance.open_responses import check_resource
from oneturn.conformance.openai_types import check_response_types
from oneturn.conformance.rules import Contract, Findings, format_value
from oneturn.core.findings import Finding

_STATUSES = ("completed", "incomplete", "failed")
_VOLATILE_FIELDS = frozenset({"id", "call_id", "status"})


def check_response(
    response: Mapping[str, Any] | BaseModel,
    *,
    answered: bool = False,
    earlier_calls: Collection[str] = (),
    contract: Contract = "mlflow",
    client_tools: Collection[str] = (),
) -> list[Finding]:
    """Check a response of ``/responses`` without a stream. Return its violations.

    Args:
        response: the response, as a dict or as a pydantic model of MLflow or openai.
        answered: as in :func:`check_stream`.
        earlier_calls: as in :func:`check_stream`.
        contract: as in :func:`check_stream`.
        client_tools: as in :func:`check_stream`.
    """
    body = to_mapping(response)
    status = body.get("status")
    findings = Findings(contract, weaker=not (body.get("id") and status))
    if not body.get("id"):
        findings.add("response-id-missing", "The response has no id.")
    if status is not None and status not in _STATUSES:
        findings.add("response-status", f"The response is {status!r}.")
    _check_items(body, findings)
    items = objects(body.get("output"))
    broken_off = status in ("incomplete", "failed")
    positioned = [(None, item) for item in items]
    check_calls(positioned, findings, answered=answered, broken_off=broken_off, earlier=earlier_calls)
    if status == "failed":
        check_error(body.get("error"), findings)
    elif status == "incomplete":
        check_reason(body, findings)
    else:
        check_usage(body, findings)
    check_response_types(body, findings)
    if contract == "openresponses":
        check_resource(body, client_tools, findings)
    return findings.in_order()


def compare(events: Iterable[Mapping[str, Any] | BaseModel], response: Mapping[str, Any] | BaseModel) -> list[Finding]:
    """Compare a stream with the response to the same question, ids and abandoned messages aside.

    Return the differences.

    Requires a deterministic agent.
    """
    findings = Findings()
    stream = [to_mapping(event) for event in events]
    final = objects(mapping(stream[-1].get("response")).get("output")) if stream else []
    lasting = [item for item in done_items(stream) if not is_draft(item) or item in final]
    streamed = [_stable_fields(item) for item in lasting]
    complete = [_stable_fields(item) for item in objects(to_mapping(response).get("output"))]
    if len(streamed) != len(complete):
        findings.add("stream-differs", f"The stream has {len(streamed)} items, the response {len(complete)}.")
    for number, (one, other) in enumerate(zip(streamed, complete, strict=False)):
        if not same(one, other):
            findings.add(
                "stream-differs",
                f"Item {number}: the stream has {format_value(one, 200)}, the response {format_value(other, 200)}.",
            )
    return findings.in_order()


def _stable_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in _VOLATILE_FIELDS}


def _check_items(body: Mapping[str, Any], findings: Findings) -> None:
    output = body.get("output")
    if not isinstance(output, list):
        findings.add("openai-types", f"output is {format_value(output)}, not a list.")
    ids: list[Any] = []
    for item in objects(output):
        id = item.get("id")
        if not id:
            findings.add("item-id-missing", f"A {item.get('type')} has no id.")
        elif id in ids:
            findings.add("item-id-reused", f"The id {id!r} names a second item, a {item.get('type')}.")
        ids.append(id)
        if item.get("status") == "in_progress":
            findings.add("item-status", f"{item.get('type')} {id} is in_progress.")
