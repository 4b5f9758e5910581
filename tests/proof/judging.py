"""What holds for every stream, whatever has happened in its run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import openai.types.responses as openai_types
import pytest
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentStreamEvent
from pydantic import TypeAdapter

from oneturn import ResponsesAdapter
from oneturn.conformance import Severity, check_response, check_stream, compare
from oneturn.conformance.events import done_items
from oneturn.errors import AgentError

Event = dict[str, Any]
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
# Without a stream, MLflow drops usage.input_tokens_details.cache_write_tokens.
LESS_WITHOUT_A_STREAM = "openai-fields"
NO_COST_TOLD = "usage-missing"  # by a program whose last step isn't its ``Usage``

_OPENAI_EVENT: TypeAdapter[Any] = TypeAdapter(openai_types.ResponseStreamEvent)


def judged(
    events: Iterable[ResponsesAgentStreamEvent], earlier_calls: Iterable[str] = (), known: Collection[str] = ()
) -> list[Event]:
    """The stream, once it has kept its promises: no rule is broken but those ``known``."""
    stream = [event.model_dump() for event in events]
    found = check_stream(stream, earlier_calls=set(earlier_calls))
    broken = [violation for violation in found if violation.severity is not Severity.note]
    assert [violation for violation in broken if violation.check not in known] == []
    assert [event["type"] for event in stream if event["type"] in TERMINAL] == [stream[-1]["type"]]
    for event in stream:
        known_to_clients(event)
    return stream


def known_to_clients(event: Event) -> None:
    """That an event gets over the wire, strict JSON in UTF-8, and that MLflow and openai's client know what it is."""
    wire = json.dumps(event, allow_nan=False, ensure_ascii=False).encode()
    data = json.loads(wire)
    if data["type"] == "response.incomplete":
        data["response"]["incomplete_details"]["reason"] = "max_output_tokens"  # openai has no name for ours
    if data["type"] == "response.failed":
        data["response"]["error"]["code"] = "server_error"  # likewise
    _OPENAI_EVENT.validate_python(data)
    assert ResponsesAgentStreamEvent.model_validate(event).model_dump() == event


def outcome(stream: Iterable[Event]) -> str:
    """How it ended: completed, incomplete or failed."""
    return str([event["type"] for event in stream][-1].removeprefix("response."))


def answer_in(stream: Iterable[Event]) -> str | None:
    """The text of its last message, if that is whole."""
    messages = [item for item in done_items(stream) if item["type"] == "message"]
    if not messages or messages[-1]["status"] != "completed":
        return None
    return str(messages[-1]["content"][0]["text"])


def without_a_stream_it_says_the_same(
    agent: ResponsesAdapter, request: ResponsesAgentRequest, stream: list[Event], exactly: bool = True
) -> None:
    """That ``predict`` gives what the stream has ended with.

    Args:
        agent: one that hasn't been asked, if its LM goes by a script.
        request: what the stream was the answer to.
        stream: the stream.
        exactly: whether the program does the same either way. Where an LM doesn't stream, no text is begun in vain.
    """
    last = stream[-1]["response"]
    if outcome(stream) == "failed":
        with pytest.raises(AgentError) as caught:
            agent.predict(request)
        error = stream[-2]
        assert (error["type"], error["code"], error["message"]) == ("error", caught.value.code, str(caught.value))
        return
    response = agent.predict(request)
    data = response.model_dump()
    found = [violation for violation in check_response(response) if violation.severity is not Severity.note]
    assert {violation.check for violation in found} <= {LESS_WITHOUT_A_STREAM, NO_COST_TOLD}
    assert data["status"] == last["status"]
    assert data["custom_outputs"] == last.get("custom_outputs")
    assert (data["usage"] or {}).get("total_tokens") == (last.get("usage") or {}).get("total_tokens")
    lasting = stream if exactly else [event for event in stream if not _given_up(event)]
    whole = data if exactly else {"output": [item for item in data["output"] if not _given_up({"item": item})]}
    assert compare(lasting, whole) == []


def _given_up(event: Mapping[str, Any]) -> bool:
    item = event.get("item") or {}
    return item.get("type") == "message" and item.get("status") == "incomplete"
