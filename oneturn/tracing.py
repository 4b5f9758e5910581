"""MLflow spans below the agent's own, and nothing at all when nobody is tracing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow.entities import LiveSpan


@contextmanager
def child_span(name: str, span_type: str, inputs: Mapping[str, Any]) -> Iterator[LiveSpan | None]:
    """Open a span below the active one; yield ``None`` when no trace is being recorded.

    Only a request that is already traced gets child spans, so that compiling and batch evaluation
    don't write a trace for every call.
    """
    if mlflow.get_current_active_span() is None:
        yield None
        return
    with mlflow.start_span(name=name, span_type=span_type) as span:
        span.set_inputs(dict(inputs))
        yield span
