"""A request's span, and the context that the request runs in.

MLflow wraps a ``ResponsesAgent``'s ``predict_stream`` by itself. Its wrapper writes every event into the span, text
delta by text delta, and loses the whole trace when a client leaves before the end.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Generator
from typing import Any

import mlflow
from mlflow.entities import LiveSpan, SpanType
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentStreamEvent

Events = Generator[ResponsesAgentStreamEvent, None, None]

OUTCOME = "oneturn.outcome"
"""The attribute of a request's span that tells how it ended."""

COMPLETED = "completed"
"""How it ends where nothing fails."""

_OUTCOMES = {
    "response.completed": COMPLETED,
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}


class SelfTraced(ResponsesAgent):
    """A ``ResponsesAgent`` whose subclasses MLflow leaves as they are: they trace themselves."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        object.__init_subclass__(**kwargs)


def in_span(name: str, request: ResponsesAgentRequest, events: Events) -> Events:
    """The events of a request, each produced in a context of their own in which the request's span is active.

    What reads them isn't affected. The span's output is the response that the stream ends with; its attribute
    ``oneturn.outcome`` tells how it ended: ``completed``, ``incomplete``, ``failed``, or ``abandoned`` by the client.

    Args:
        name: the span's name.
        request: what was asked.
        events: the stream, not yet begun.
    """
    context = contextvars.copy_context()
    opened = mlflow.start_span(name, SpanType.AGENT)
    span = context.run(opened.__enter__)
    span.set_inputs({"request": request})
    span.set_attribute(OUTCOME, "abandoned")
    try:
        while (event := context.run(next, events, None)) is not None:
            if event.type in _OUTCOMES:
                _note(span, event)
            yield event
    except GeneratorExit:
        context.run(events.close)
    finally:
        context.run(opened.__exit__, *sys.exc_info())


def _note(span: LiveSpan, event: ResponsesAgentStreamEvent) -> None:
    told = event.model_dump(exclude_none=True)
    span.set_attribute(OUTCOME, _OUTCOMES[event.type])
    span.set_outputs(told["response"])
    if event.type == "response.failed":
        span.set_status("ERROR")
