"""A stream of events, graded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from oneturn.conformance.calls import check_calls
from oneturn.conformance.ending import check_ending
from oneturn.conformance.items import follow_items
from oneturn.conformance.order import check_order
from oneturn.conformance.reading import kind, plain, speaks_weaker
from oneturn.conformance.rules import Findings, Violation
from oneturn.conformance.texts import check_texts
from oneturn.conformance.types import check_event_types

_BROKEN_OFF = frozenset({"error", "response.failed", "response.incomplete"})


def check_stream(
    events: Iterable[Mapping[str, Any] | BaseModel], *, answered: bool = False, earlier_calls: Collection[str] = ()
) -> list[Violation]:
    """What is wrong with a stream of Responses events; an empty list if nothing is.

    A stream with neither ``response.created`` nor ``response.output_item.added`` is taken for MLflow's weaker
    contract: what it merely leaves out are warnings then.

    Args:
        events: the whole stream, as dicts or as pydantic models of MLflow or openai.
        answered: whether the agent runs all its tools itself: a call at the end without an output is then an error;
            otherwise it is taken for one that the client shall run or approve.
        earlier_calls: ``call_id``s in the request's input, whose outputs may come without their call.
    """
    stream = [plain(event) for event in events]
    found = Findings(weaker=speaks_weaker(stream))
    check_order(stream, found)
    items = follow_items(stream, found)
    check_texts(items, found)
    ended = sorted((item for item in items if item.ended is not None), key=lambda item: item.ended or 0)
    check_calls(
        [(item.ended, item.done or {}) for item in ended],
        found,
        answered=answered,
        broken_off=any(kind(event) in _BROKEN_OFF for event in stream),
        earlier=earlier_calls,
    )
    check_ending(stream, items, found)
    check_event_types(stream, found)
    return found.in_order()
