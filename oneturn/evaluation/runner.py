"""``evaluate``: one result row per input row, in order, failures included."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import dspy
import pandas as pd
from tqdm.auto import tqdm

from oneturn.core._dspy import replaced_cache
from oneturn.core.terminal import can_redraw
from oneturn.errors import DataError
from oneturn.evaluation.approval import ApprovalPolicy
from oneturn.evaluation.column_names import check_column_names, check_metric_names, reserved_column
from oneturn.evaluation.data_sources import SPARK, Source, Unreadable, build_source
from oneturn.evaluation.error_limits import ErrorLimits, EvaluationStopped, stop_at_limits
from oneturn.evaluation.metric_columns import SAMPLE, check_columns
from oneturn.evaluation.rate_limit import ConcurrencyLimiter
from oneturn.evaluation.result import REPEAT, Evaluation, Metric
from oneturn.evaluation.results_file import ResultsFile
from oneturn.evaluation.results_reader import to_frame
from oneturn.evaluation.row import evaluate_row, unreadable_row
from oneturn.evaluation.targets import EndpointTarget, Target, resolve_target
from oneturn.programs.fingerprint import digest, fingerprint


def repeat_rows(source: Source, repeats: int) -> Source:
    """The source with each row repeated consecutively.

    Raises:
        DataError: ``repeats`` isn't positive.
    """
    if repeats < 1:
        raise DataError(f"repeats is {repeats}; it must be at least 1.")
    if repeats == 1:
        return source
    return replace(
        source,
        rows=lambda: (row for row in source.rows() for _ in range(repeats)),
        count=None if source.count is None else source.count * repeats,
        key=f"{source.key} x {repeats}",
    )


TRIES = 4
"""The maximum number of attempts of a row while the LM or the endpoint is rate-limited."""

_SAME_ERRORS = ErrorLimits()
_FINISHED = (
    "{} has all rows of this evaluation already; nothing was run. To run it again, start over (fresh=True, --fresh); "
    "to apply a changed metric to the same answers, use rescore (--rescore)."
)
_NOT_IDENTIFIED = (
    "%s doesn't say which program it serves: the rows in %s count as its answers. If it serves another one by now, "
    "start over (fresh=True, --fresh)."
)
_log = logging.getLogger(__name__)

Row = dict[str, Any]
Metrics = Metric | Mapping[str, Metric] | Sequence[Metric]


def evaluate(
    target: Any,
    data: Any,
    metrics: Metrics,
    *,
    lm: dspy.BaseLM | None = None,
    threads: int = 1,
    output: str | Path | None = None,
    fresh: bool = False,
    repeats: int = 1,
    inputs: Sequence[str] | None = None,
    api_key: str | None = None,
    trace: bool = False,
    progress: bool = True,
    approve: ApprovalPolicy | None = None,
    types: Mapping[str, Any] | None = None,
    max_same_errors: ErrorLimits | None = _SAME_ERRORS,
) -> Evaluation:
    """Run ``target`` on every row and judge each answer.

    A failed row scores 0 and has the reason in ``error``; the other rows are not affected. If the LM or the endpoint is
    rate-limited or unavailable (429, 503), a row is tried up to four times, after the requested pause and with fewer
    rows in parallel.

    With ``output``, each row is written to the file when it is done. An interrupted evaluation resumes when it is
    started again: no row is repeated or lost. Memory doesn't grow with the number of rows; they are read from the file
    on access. A finished evaluation isn't run again: its rows are returned. It is recognized by the data, the program's
    prompts, tools, plain attributes and LM, and the source text and settings of the metrics; a logged model by its id,
    a URL by the ``fingerprint`` at its ``/agent/info``. A server without one is taken for the same, with a warning.

    Args:
        target: a ``dspy.Module``; an :class:`oneturn.Agent`; the URL of a served agent; the URI of a logged model,
            ``models:/…``.
        data: examples, mappings, a ``pandas.DataFrame``, a ``.jsonl``, ``.csv`` or ``.parquet`` file, an MLflow
            dataset, a Spark ``DataFrame``. The format of MLflow's Agent Evaluation (``inputs``, ``expectations``) is
            supported: see :func:`oneturn.evaluation.data_sources.example_fields`.
        metrics: one metric, whose score is the column ``score``; or several, as a mapping by name or a sequence, each
            with its own column; the first of them is also the ``score``.
        lm: the LM for a program; ``None`` for the configured LM.
        threads: rows in parallel.
        output: a ``.jsonl``, ``.csv`` or ``.parquet`` file for the rows.
        fresh: start over, and replace the rows of an interrupted or finished evaluation, of another one too. Any other
            file is never replaced.
        repeats: how often each example is tried, one row each, with its number from 0 in ``repeat``: see
            :meth:`Evaluation.pass_hat_k`. DSPy's cache is disabled; an LM with temperature 0 still gives the same
            answer each time.
        inputs: the input fields; ``None`` for those that the examples mark, else those of the program.
        api_key: the token for a URL; see :func:`oneturn.query`.
        trace: whether to record an MLflow trace for each row of a program, with its id in ``trace_id``.
        progress: whether to show a progress bar.
        approve: decides on each tool call that needs a person's approval. Without it no such call is run: its row ends
            in ``approval_required``. A metric sees that in ``run_record(prediction).outcome``, and all outputs are
            ``None``; if it raises, the row has the error ``approval_required``.
        types: the types of the outputs of a URL, which arrive as JSON: dates, enums and models become what the program
            returns, so that a metric scores them alike. See :func:`oneturn.evaluation.output_types`.
        max_same_errors: stop if the first 10 rows, or 20 rows in a row, failed with the same error; ``None`` to run all
            rows, whatever happens.

    Returns:
        The evaluation. Its rows have the data's own fields, ``pred_…`` for each output, ``score``, ``feedback``, the
        other metrics, ``run_tool_calls``, ``run_sources``, ``run_approvals`` (the calls that need approval, where a
        run ended), the usage (``lm_calls``, ``prompt_tokens``, ``completion_tokens``, ``cached_tokens``,
        ``cache_write_tokens``, ``reasoning_tokens``, and ``cost`` in US dollars, if the LM's price is known),
        ``seconds``, ``trace_id``, ``tries`` and ``error``.

    Raises:
        DataError: there are no rows; a metric needs a column that no row has; a metric or a column of the data has the
            name of a result column; the target or the data is of an unsupported type; ``repeats`` isn't positive; or
            ``output`` is the data, another evaluation's rows, or any other file.
        EvaluationStopped: the rows keep failing with the same error. With ``output``, the other rows are kept.
    """
    if output is not None and _same_file(data, Path(output)):
        raise DataError(f"{output} is the data; name another file for the rows.")
    limits = max_same_errors or ErrorLimits(0, 0)
    named = named_metrics(metrics)
    resolved = resolve_target(target, lm, api_key, trace, approve, types)
    source = build_source(data, tuple(inputs or resolved.inputs), resolved.optional, resolved.columns)
    if source.key != SPARK:  # reading its rows twice costs a job
        sample = list(itertools.islice(source.rows(), SAMPLE))
        check_columns(named, sample)
        check_column_names(sample, named, resolved.types)
    source = repeat_rows(source, repeats)
    # DSPy's cache would give each repeat the same answer.
    with contextlib.nullcontext() if repeats == 1 else replaced_cache(memory=False):
        if output is None:
            completed = iter_rows(resolved, source, named, threads, repeats, progress)
            done = sorted(stop_at_limits(completed, limits), key=lambda entry: entry[0])
            return Evaluation(_table([row for _, row in done]))
        results = ResultsFile(Path(output), _key(resolved, source, named, approve), fresh)
        with closing(results):
            if (
                isinstance(resolved, EndpointTarget)
                and not resolved.is_identified
                and (results.finished or results.count)
            ):
                _log.warning(_NOT_IDENTIFIED, target, results.path)
            if results.finished:
                _log.warning("%s", _FINISHED.format(results.path))
                return Evaluation.read(results.path)
            completed = iter_rows(resolved, source, named, threads, repeats, progress, results.done)
            try:
                for number, row in stop_at_limits(completed, limits):
                    results.add(number, row)
            except EvaluationStopped as stopped:
                results.discard(stopped.rows)
                raise
            results.finish()
    return Evaluation.read(results.path)


def iter_rows(
    target: Target,
    source: Source,
    metrics: Mapping[str, Metric],
    threads: int,
    repeats: int = 1,
    progress: bool = False,
    known: Callable[[int], bool] = lambda number: False,
) -> Iterator[tuple[int, Row]]:
    """Yield the rows of an evaluation as they complete, each with its number; few are in memory at a time.

    Args:
        target: what answers.
        source: the data, with repeats.
        metrics: the metrics by column name.
        threads: rows in parallel.
        repeats: how often ``source`` contains each example.
        progress: whether to show a progress bar.
        known: returns whether to skip the row with a number.
    """
    limiter = ConcurrencyLimiter(threads)

    def evaluate_numbered(number: int, example: dspy.Example | Unreadable) -> Row:
        row: Row = {} if repeats == 1 else {REPEAT: number % repeats}
        if isinstance(example, Unreadable):
            return row | unreadable_row(example, metrics)
        if (reason := reserved_column(example, metrics, target.types)) is not None:  # a later row than the checked ones
            return row | unreadable_row(Unreadable(reason), metrics)
        return evaluate_row(target, example, metrics, limiter, TRIES, row)

    return _completed(source, evaluate_numbered, threads, progress, known)


def named_metrics(metrics: Metrics) -> dict[str, Metric]:
    """The metrics by column name.

    Raises:
        DataError: there are none, two have the same name, or one has the name of a result column.
    """
    if callable(metrics):
        return {"score": metrics}
    named = dict(metrics) if isinstance(metrics, Mapping) else {_name(metric): metric for metric in metrics}
    if not named or len(named) != len(metrics):
        raise DataError("Give at least one metric, each with a unique name.")
    check_metric_names(named)
    return named


def _completed(
    source: Source,
    evaluate_row: Callable[[int, dspy.Example | Unreadable], Row],
    threads: int,
    progress: bool,
    known: Callable[[int], bool],
) -> Iterator[tuple[int, Row]]:
    """Yield the rows as they complete, each with its number; at most twice ``threads`` are submitted at a time."""
    pending = ((number, example) for number, example in enumerate(source.rows()) if not known(number))
    bar = tqdm(total=source.count, desc="evaluate", unit="row", disable=not (progress and can_redraw()))
    with ThreadPoolExecutor(threads, thread_name_prefix="oneturn-row") as pool, bar:
        running: dict[Future[Row], int] = {}
        done: SimpleQueue[Future[Row]] = SimpleQueue()
        try:
            while True:
                while len(running) < 2 * threads and (entry := next(pending, None)) is not None:
                    # dspy.context uses context variables, which the threads of a pool don't inherit.
                    future = pool.submit(contextvars.copy_context().run, evaluate_row, entry[0], entry[1])
                    running[future] = entry[0]
                    future.add_done_callback(done.put)
                if not running:
                    return
                future = done.get()
                yield running.pop(future), future.result()
                bar.update()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _table(rows: list[Row]) -> pd.DataFrame:
    if not rows:
        raise DataError("There are no examples to evaluate; give at least one.")
    return to_frame(rows)


def _key(target: Target, source: Source, metrics: Mapping[str, Metric], approve: ApprovalPolicy | None = None) -> str:
    judged = [[name, fingerprint(metric)] for name, metric in metrics.items()]
    return digest([target.key(), source.key, judged, fingerprint(approve)])


def _same_file(path: Any, other: Path) -> bool:
    return isinstance(path, str | Path) and other.exists() and Path(path).exists() and other.samefile(path)


def _name(metric: Callable[..., Any]) -> str:
    return str(getattr(metric, "__name__", type(metric).__name__))
