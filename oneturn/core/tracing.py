"""Child spans in MLflow traces; a no-op when no trace is active."""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow.entities import LiveSpan
from mlflow.environment_variables import MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE
from mlflow.tracing.constant import SpanAttributeKey, TokenUsageKey
from mlflow.tracing.provider import _get_trace_exporter

from oneturn.core.usage import Usage


@contextmanager
def child_span(
    name: str, span_type: str, inputs: Mapping[str, Any], parent: LiveSpan | None = None
) -> Iterator[LiveSpan | None]:
    """Open a child span of the active span; yield ``None`` when no trace is active.

    Only traced requests get child spans, so that compiling and batch evaluation don't write a trace for every call.

    Args:
        name: the span's name.
        span_type: MLflow's span type.
        inputs: the inputs of the call.
        parent: the parent span if none is active, for a thread that was started without the context.
    """
    if mlflow.get_current_active_span() is not None:
        with mlflow.start_span(name=name, span_type=span_type) as span:
            span.set_inputs(dict(inputs))
            yield span
    elif parent is not None:
        yield from _child_of(parent, name, span_type, inputs)
    else:
        yield None


def set_usage(span: LiveSpan, usage: Usage) -> None:
    """Set the tokens of a span's LM calls. MLflow sums them in ``trace.info.token_usage``, nested spans once."""
    if not usage.tokens:
        return
    tokens = {
        TokenUsageKey.INPUT_TOKENS: usage.input_tokens,
        TokenUsageKey.OUTPUT_TOKENS: usage.output_tokens,
        TokenUsageKey.TOTAL_TOKENS: usage.tokens,
        TokenUsageKey.CACHE_READ_INPUT_TOKENS: usage.cached_tokens,
        TokenUsageKey.CACHE_CREATION_INPUT_TOKENS: usage.cache_write_tokens,
    }
    cache = TokenUsageKey.cache_keys()
    span.set_attribute(
        SpanAttributeKey.CHAT_USAGE, {key: count for key, count in tokens.items() if count or key not in cache}
    )


_SPANS_A_BATCH = 512


def export_in_batches() -> None:
    """Make MLflow write the spans of this process in large batches, unless the environment sets their size.

    MLflow's default is 5, so that a trace of 7 spans costs one to two requests to the tracking server for its spans,
    besides the one for the trace itself. Traces don't appear later: a batch waits 5 seconds at most either way.
    Call it before the first span.
    """
    if not MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE.is_set():
        MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE.set(_SPANS_A_BATCH)


def flush_at_exit() -> None:
    """Flush the traces when this process ends. Call it for each trace, while its span is active.

    MLflow flushes them in an ``atexit`` function and starts the thread that writes them with the first batch, seconds
    after a trace. From the end of the main thread on, Python 3.12 starts no new thread: that thread has to run before,
    and so have those that it hands the traces to. (If one can't be started, MLflow may write a trace twice.)
    """
    queue = getattr(_get_trace_exporter(), "_async_queue", None)
    if queue is not None:
        queue.activate()
        _start_workers(getattr(queue, "_worker_threadpool", None))
    _register_flush()


def _start_workers(pool: ThreadPoolExecutor | None) -> None:
    """Start all threads of a pool, which starts one only if none is idle."""
    missing = getattr(pool, "_max_workers", 0) - len(getattr(pool, "_threads", ()))
    if pool is not None and missing > 0:
        started = threading.Event()
        for _ in range(missing):
            pool.submit(started.wait)
        started.set()


@functools.cache
def _register_flush() -> None:
    register = getattr(threading, "_register_atexit", atexit.register)  # before Python ends the pools of threads
    register(functools.partial(mlflow.flush_trace_async_logging, terminate=True))


def _child_of(parent: LiveSpan, name: str, span_type: str, inputs: Mapping[str, Any]) -> Iterator[LiveSpan]:
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
