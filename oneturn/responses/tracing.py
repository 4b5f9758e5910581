"""The span of a request, and the context that the request runs in.

MLflow wraps ``ResponsesAgent.predict_stream`` on its own. Its wrapper writes every event into the span, including each
text delta, and loses the trace when a client disconnects before the end.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Generator
from typing import Any

import mlflow
from mlflow.entities import LiveSpan, SpanType
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.core.tracing import flush_at_exit
from oneturn.responses.event_writer import Event

Events = Generator[Event, None, None]

OUTCOME = "oneturn.outcome"
"""The span attribute that holds the outcome of a request."""

COMPLETED = "completed"
"""The outcome of a successful request."""

_OUTCOMES = {
    "response.completed": COMPLETED,
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}


class SelfTraced(ResponsesAgent):
    """A ``ResponsesAgent`` whose subclasses MLflow doesn't wrap: they trace themselves."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        object.__init_subclass__(**kwargs)


def in_span(name: str, request: ResponsesAgentRequest, events: Events) -> Events:
    """Yield the events of a request, each produced in a separate context in which the request's span is active.

    The reader's own context is unchanged. The span's output is the response in the terminal event. Its attribute
    ``oneturn.outcome`` is ``completed``, ``incomplete`` or ``failed``, or ``abandoned`` if the client disconnects.

    Args:
        name: the span's name.
        request: the span's input.
        events: the stream, not yet started.
    """
    context = contextvars.copy_context()
    span_context = mlflow.start_span(name, SpanType.AGENT)
    span = context.run(span_context.__enter__)
    span.set_inputs({"request": request})
    context.run(_set_session, request)
    flush_at_exit()
    span.set_attribute(OUTCOME, "abandoned")
    try:
        while (event := context.run(next, events, None)) is not None:
            if event["type"] in _OUTCOMES:
                _record_outcome(span, event)
            yield event
    except GeneratorExit:
        context.run(events.close)
    finally:
        context.run(span_context.__exit__, *sys.exc_info())


def _set_session(request: ResponsesAgentRequest) -> None:
    """Set the trace's session and user from the request's ``context``."""
    context = request.context
    session, user = (context.conversation_id, context.user_id) if context is not None else (None, None)
    if session or user:
        mlflow.update_current_trace(session_id=session, user=user)


def _record_outcome(span: LiveSpan, event: Event) -> None:
    span.set_attribute(OUTCOME, _OUTCOMES[event["type"]])
    span.set_outputs(event["response"])
    if event["type"] == "response.failed":
        span.set_status("ERROR")
