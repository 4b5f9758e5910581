"""MLflow spans below the agent's own, and nothing at all when nobody is tracing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow.entities import LiveSpan


@contextmanager
def child_span(
    name: str, span_type: str, inputs: Mapping[str, Any], parent: LiveSpan | None = None
) -> Iterator[LiveSpan | None]:
    """Open a span below the active one; yield ``None`` when no trace is being recorded.

    Only a request that is already traced gets child spans, so that compiling and batch evaluation
    don't write a trace for every call.

    Args:
        name: what is called.
        span_type: MLflow's name for its kind.
        inputs: what it is called with.
        parent: the span to stand below where none is active, in a thread that was started without its context.
    """
    if mlflow.get_current_active_span() is not None:
        with mlflow.start_span(name=name, span_type=span_type) as span:
            span.set_inputs(dict(inputs))
            yield span
    elif parent is not None:
        yield from _span_below(parent, name, span_type, inputs)
    else:
        yield None


def _span_below(parent: LiveSpan, name: str, span_type: str, inputs: Mapping[str, Any]) -> Iterator[LiveSpan]:
    span = mlflow.start_span_no_context(name, span_type, parent_span=parent, inputs=dict(inputs))
    try:
        yield span
    except BaseException as error:
        span.set_status("ERROR")
        if isinstance(error, Exception):
            span.record_exception(error)
        raise
    finally:
        span.end()
