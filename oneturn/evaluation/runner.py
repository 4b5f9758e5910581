"""``evaluate``: one row a row, whatever happens to it, in the order of the data."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import dspy
import pandas as pd
from dspy.clients.cache import Cache
from tqdm.auto import tqdm

from oneturn.errors import DataError
from oneturn.evaluation.approval import ApprovalPolicy
from oneturn.evaluation.data_sources import Source, Unreadable, source_of
from oneturn.evaluation.rate_limit import Limiter
from oneturn.evaluation.result import REPEAT, Evaluation, Metric
from oneturn.evaluation.results_file import ResultsFile
from oneturn.evaluation.row import clash, evaluated, unreadable
from oneturn.evaluation.targets import Target, resolve_target


def repeated(source: Source, repeats: int) -> Source:
    """The rows of a source, each so many times in a row.

    Raises:
        DataError: it isn't a positive number.
    """
    if repeats < 1:
        raise DataError(f"repeats is {repeats}; an example is tried at least once.")
    if repeats == 1:
        return source
    return replace(
        source,
        rows=lambda: (row for row in source.rows() for _ in range(repeats)),
        count=None if source.count is None else source.count * repeats,
        key=f"{source.key} x {repeats}",
    )


@contextmanager
def uncached() -> Iterator[None]:
    """DSPy without its cache, which would answer each time as the first time."""
    before = dspy.cache
    dspy.cache = Cache(enable_disk_cache=False, enable_memory_cache=False, disk_cache_dir=None)
    try:
        yield
    finally:
        dspy.cache = before


TRIES = 4
"""How often a row is tried that the LM or the endpoint can't take now."""

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
) -> Evaluation:
    """Run ``target`` on every row and judge each answer.

    What fails costs its row the score, nothing more: the reason stands in the row's ``error``. A row that the LM or
    the endpoint can't take now (429, 503) is tried again when it says so, up to four times, and fewer at the same time.

    With ``output``, each row is written down as it is done. An evaluation that was interrupted, or killed, goes on
    when it is started again: no row is done twice, none is lost; and memory doesn't grow with the rows, which are read
    back when the evaluation is asked for them.

    Args:
        target: a ``dspy.Module``; an :class:`oneturn.Agent`; the URL of a served agent; the URI of a logged model,
            ``models:/…``.
        data: examples, mappings, a ``pandas.DataFrame``, a ``.jsonl``, ``.csv`` or ``.parquet`` file, an MLflow
            dataset, a Spark ``DataFrame``. Rows of MLflow's Agent Evaluation (``inputs``, ``expectations``) are read,
            too: see :func:`oneturn.evaluation.data_sources.example_fields`.
        metrics: how an answer is judged: one, whose score is the column ``score``; or several, by name or by their own
            names, each a column; the first of them is the ``score``.
        lm: the LM to use with a program; ``None`` for the one that is configured.
        threads: rows at the same time.
        output: a ``.jsonl``, ``.csv`` or ``.parquet`` file for the rows.
        fresh: do again what an earlier start has done.
        repeats: how often each example is tried, a row each, with its number from 0 in ``repeat``: see
            :meth:`Evaluation.pass_hat_k`. DSPy's cache answers none of them; an LM whose temperature
            is 0 says the same each time.
        inputs: the fields that are given; ``None`` for those that the examples mark, or the program takes.
        api_key: the token for a URL; see :func:`oneturn.query`.
        trace: whether each row of a program is an MLflow trace, named in ``trace_id``.
        progress: whether to show a bar.
        approve: decides on each tool call that needs a person's approval. Without it no such call is run: its row ends
            in ``approval_required``. A metric sees that in ``run_record(prediction).outcome``, and all outputs are
            ``None``; if it raises, the row has the error ``approval_required``.

    Returns:
        The rows: the data's own fields, ``pred_…`` for each output, ``score``, ``feedback``, the other metrics,
        ``pred_tool_calls``, ``pred_sources``, ``pred_approvals`` (the calls that need approval, where a run ended),
        ``lm_calls``, ``prompt_tokens``, ``completion_tokens``, ``cost`` (US dollars, where the LM's price is known),
        ``seconds``, ``trace_id``, ``tries`` and ``error``.

    Raises:
        DataError: there are no rows; target or data are of no known kind; ``repeats`` isn't positive; or ``output`` is
            of another evaluation.
    """
    named = named_metrics(metrics)
    answering = resolve_target(target, lm, api_key, trace, approve)
    source = repeated(source_of(data, tuple(inputs or answering.inputs)), repeats)
    with contextlib.nullcontext() if repeats == 1 else uncached():
        if output is None:
            done = sorted(rows_of(answering, source, named, threads, repeats, progress), key=lambda found: found[0])
            return Evaluation(_table([row for _, row in done]))
        results = ResultsFile(Path(output), _key(answering, source, named, approve), fresh)
        with closing(results):
            for number, row in rows_of(answering, source, named, threads, repeats, progress, results.done):
                results.add(number, row)
            results.finish()
    return Evaluation.read(results.path)


def rows_of(
    target: Target,
    source: Source,
    metrics: Mapping[str, Metric],
    threads: int,
    repeats: int = 1,
    progress: bool = False,
    known: Callable[[int], bool] = lambda number: False,
) -> Iterator[tuple[int, Row]]:
    """The rows of an evaluation as they are done, each with its number; few are in memory at a time.

    Args:
        target: what answers.
        source: the data; each example as often as it is repeated.
        metrics: by the names of their columns.
        threads: rows at the same time.
        repeats: how often each example stands in ``source``.
        progress: whether to show a bar.
        known: says which numbers to leave out.
    """
    limiter = Limiter(threads)

    def work(number: int, example: dspy.Example | Unreadable) -> Row:
        row: Row = {} if repeats == 1 else {REPEAT: number % repeats}
        wrong = example if isinstance(example, Unreadable) else clash(example)
        if wrong is not None:
            return row | unreadable(wrong, metrics)
        return evaluated(target, example, metrics, limiter, TRIES, row)

    return _done(source, work, threads, progress, known)


def named_metrics(metrics: Metrics) -> dict[str, Metric]:
    """Metrics by the names of their columns.

    Raises:
        DataError: there are none, or two have the same name.
    """
    if callable(metrics):
        return {"score": metrics}
    given = dict(metrics) if isinstance(metrics, Mapping) else {_name(metric): metric for metric in metrics}
    if not given or len(given) != len(metrics):
        raise DataError("Give at least one metric, and each a name of its own.")
    return given


def _done(
    source: Source,
    work: Callable[[int, dspy.Example | Unreadable], Row],
    threads: int,
    progress: bool,
    known: Callable[[int], bool],
) -> Iterator[tuple[int, Row]]:
    """The rows as they are done, each with its number; no more than twice ``threads`` of them are taken at a time."""
    missing = ((number, example) for number, example in enumerate(source.rows()) if not known(number))
    bar = tqdm(total=source.count, desc="evaluate", unit="row", disable=not progress)
    with ThreadPoolExecutor(threads, thread_name_prefix="oneturn-row") as pool, bar:
        under_way: dict[Future[Row], int] = {}
        done: SimpleQueue[Future[Row]] = SimpleQueue()
        try:
            while True:
                while len(under_way) < 2 * threads and (found := next(missing, None)) is not None:
                    # dspy.context travels in context variables, which a plain pool doesn't inherit.
                    future = pool.submit(contextvars.copy_context().run, work, found[0], found[1])
                    under_way[future] = found[0]
                    future.add_done_callback(done.put)
                if not under_way:
                    return
                future = done.get()
                yield under_way.pop(future), future.result()
                bar.update()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _table(rows: list[Row]) -> pd.DataFrame:
    if not rows:
        raise DataError("There are no examples to evaluate; give at least one.")
    return pd.DataFrame(rows)


def _key(target: Target, source: Source, metrics: Mapping[str, Metric], approve: ApprovalPolicy | None = None) -> str:
    parts = [target.key, source.key, [(name, _metric_key(metric)) for name, metric in metrics.items()]]
    told = repr(parts if approve is None else [*parts, _name(approve)])
    return hashlib.sha256(told.encode()).hexdigest()


def _metric_key(metric: Metric) -> str:
    return str(getattr(metric, "key", _name(metric)))


def _name(metric: Callable[..., Any]) -> str:
    return str(getattr(metric, "__name__", type(metric).__name__))
