"""Log a compile to MLflow: a parent run, with one child run per measured candidate."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dspy
import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from oneturn.compilation.callbacks import CompileCallback
from oneturn.compilation.candidate import Candidate
from oneturn.compilation.render import format_prompts
from oneturn.config.tracking import use_tracking
from oneturn.core.usage import Usage
from oneturn.datasets.rows import spread, to_mlflow_dataset
from oneturn.errors import OneTurnError
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval
from oneturn.programs.state import refuse_secrets_in

if TYPE_CHECKING:
    from oneturn.agent import Agent
    from oneturn.compilation.recipes.work import Estimate
    from oneturn.compilation.result import Compilation

KEY = "oneturn.compile"
"""Tag by which a resumed compile finds its run."""

NUMBER = "oneturn.candidate"
_UNITS = {"lm_calls": "LM calls", "tokens": "tokens", "seconds": "seconds", "cost": "US dollars"}
FAILURES = 10
"""Number of worst rows to trace."""

_log = logging.getLogger(__name__)


class MlflowRuns(CompileCallback):
    """Logs a compile to the agent's tracking store while it runs; a resumed compile continues its runs.

    Attributes:
        run_id: id of the parent run.
    """

    def __init__(self) -> None:
        self.run_id = ""
        self._experiment = ""
        self._child_runs: dict[int, Run] = {}
        self._child_ids: dict[int, str] = {}
        self._best = 0.0

    def on_start(self, agent: Agent, recipe: str, key: str, estimate: Estimate | None) -> None:
        """Create the parent run, or reopen the one of an earlier run of this compile."""
        use_tracking(agent.config.mlflow, agent.root)
        client = MlflowClient()
        experiment = mlflow.get_experiment_by_name(agent.config.mlflow.experiment)
        if experiment is None:
            raise OneTurnError(f"There is no MLflow experiment {agent.config.mlflow.experiment!r}.")
        self._experiment = experiment.experiment_id
        existing_runs = _search_runs(client, self._experiment, f"tags.`{KEY}` = '{key}'")
        if existing_runs:
            self.run_id = existing_runs[0].info.run_id
            client.update_run(self.run_id, status="RUNNING")
            children = _search_runs(client, self._experiment, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.run_id}'")
            self._child_runs = {int(run.data.tags[NUMBER]): run for run in children}
        else:
            tags = {KEY: key, MLFLOW_RUN_NAME: f"compile {agent.name}, {recipe}"}
            self.run_id = client.create_run(self._experiment, tags=tags).info.run_id
        settings = agent.config.compile
        params = {"agent": agent.name, "recipe": recipe, "lm": agent.config.lm.model, "seed": str(settings.seed)}
        if existing_runs and params.items() <= existing_runs[0].data.params.items():  # params are written last
            return
        if estimate is not None:
            client.log_dict(self.run_id, estimate.to_dict(), "estimate.json")
        examples = {"train": agent.examples("train"), "dev": spread(agent.examples("dev"), settings.dev_examples)}
        client.log_inputs(self.run_id, [_dataset(agent.name, split, rows) for split, rows in examples.items()])
        client.log_batch(self.run_id, params=[Param(name, value) for name, value in params.items()])

    def on_candidate(self, candidate: Candidate) -> None:
        """Log a child run with the candidate's score and prompts, and a point of the parent's curves.

        Raises:
            ProgramError: the prompts hold what looks like a secret; nothing of the candidate is logged.
        """
        if not self.run_id:
            return
        if candidate.full:
            self._best = max(self._best, candidate.score)
        existing = self._child_runs.get(candidate.number)
        if existing is not None:
            self._child_ids[candidate.number] = existing.info.run_id
            if _is_complete(existing, candidate):
                return
        prompts = format_prompts(candidate.program)
        refuse_secrets_in({"prompts": prompts}, f"Candidate {candidate.number}")
        client = MlflowClient()
        if candidate.full:
            curves = {
                "score": candidate.score,
                "best_score": self._best,
                **_usage_metrics(candidate.spent, candidate.seconds),
            }
            client.log_batch(self.run_id, metrics=_metrics(curves, step=candidate.number))
        run_id = existing.info.run_id if existing is not None else self._create_child(client, candidate)
        self._child_ids[candidate.number] = run_id
        low, high = interval(candidate.scores)
        figures = {"score": candidate.score, "score_low": low, "score_high": high, "rows": len(candidate.scores)}
        figures |= _usage_metrics(candidate.spent, candidate.seconds)
        client.log_batch(run_id, metrics=_metrics(figures, step=0))
        client.log_text(run_id, prompts, "prompts.md")
        client.set_terminated(run_id)

    def _create_child(self, client: MlflowClient, candidate: Candidate) -> str:
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, MLFLOW_RUN_NAME: candidate.name, NUMBER: str(candidate.number)}
        tags |= {"oneturn.full": str(candidate.full).lower(), "oneturn.lm": candidate.lm}
        run_id: str = client.create_run(self._experiment, tags=tags).info.run_id
        return run_id

    def on_interrupted(self, error: BaseException) -> None:
        """Set the run's status to killed or failed; a resumed compile sets it to running again."""
        if self.run_id:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            MlflowClient().set_terminated(self.run_id, status)

    def on_end(self, compilation: Compilation) -> None:
        """Log the result: metrics, the compiled program, the front, plots, and traces of the wrong rows."""
        if not self.run_id:
            return
        client = MlflowClient()
        for when, evaluation in (("before", compilation.before), ("after", compilation.after)):
            figures = {f"{when}_{name}": value for name, value in evaluation.summary().items()}
            client.log_batch(self.run_id, metrics=_metrics(figures, step=0))
        client.log_batch(self.run_id, metrics=_metrics(compilation.manifest.spend, step=0, prefix="spent_"))
        client.set_tag(self.run_id, "oneturn.stopped", compilation.stopped or "no")
        client.log_artifact(self.run_id, str(compilation.path), "compiled")
        client.log_text(self.run_id, format_prompts(compilation.program), "prompts.md")
        _log_rows(client, self.run_id, compilation.after)
        self._log_front(client, compilation)
        _log_plots(client, self.run_id, compilation)
        self._trace_failures(client, compilation)
        client.set_terminated(self.run_id)

    def _log_front(self, client: MlflowClient, compilation: Compilation) -> None:
        """Log the table of the front, and on each candidate's run its usage a question and whether it is a point."""
        front = compilation.front
        client.log_dict(self.run_id, {"unit": front.unit, "points": front.to_dicts()}, "front.json")
        client.set_tag(self.run_id, "oneturn.compiled_candidate", str(compilation.kept))
        points = {point.number for point in front.points}
        for candidate in front.measured:
            usage = {f"{unit}_a_question": candidate.per_question(name) for unit, name in _UNITS.items()}
            known = {name: value for name, value in usage.items() if value is not None}
            run_id = self._child_ids.get(candidate.number)
            if run_id is None:  # it was refused, because of a secret
                continue
            client.log_batch(run_id, metrics=_metrics(known, step=0))
            client.set_tag(run_id, "oneturn.front", str(candidate.number in points).lower())

    def _trace_failures(self, client: MlflowClient, compilation: Compilation) -> None:
        rows = compilation.after.rows
        worst = rows[rows["score"] < 1].nsmallest(FAILURES, "score", keep="first")
        traces = [compilation.trace(int(index)) for index in worst.index]
        mlflow.flush_trace_async_logging()
        if trace_ids := [trace for trace in traces if trace is not None]:
            client.link_traces_to_run(trace_ids, self.run_id)


def _search_runs(client: MlflowClient, experiment: str, condition: str) -> Sequence[Run]:
    runs: Sequence[Run] = client.search_runs([experiment], condition, max_results=1000)
    return runs


def _is_complete(run: Run, candidate: Candidate) -> bool:
    """Whether an earlier run of the compile has logged the candidate completely and with the same score."""
    return run.info.status == "FINISHED" and run.data.metrics.get("score") == candidate.score


def _metrics(values: Mapping[str, float], step: int, prefix: str = "") -> list[Metric]:
    now = int(pd.Timestamp.now().timestamp() * 1000)
    return [Metric(prefix + name, float(value), now, step) for name, value in values.items()]


def _usage_metrics(totals: Usage, seconds: float) -> dict[str, float]:
    cost = {} if totals.cost is None else {"cost": totals.cost}
    return {"lm_calls": totals.lm_calls, "tokens": totals.tokens, "minutes": seconds / 60, **cost}


def _dataset(agent: str, split: str, examples: Sequence[dspy.Example]) -> DatasetInput:
    entity = to_mlflow_dataset(agent, split, examples)._to_mlflow_entity()
    return DatasetInput(entity, tags=[InputTag(MLFLOW_DATASET_CONTEXT, split)])


def _log_rows(client: MlflowClient, run_id: str, evaluation: Evaluation) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "after.jsonl"
        path.write_text(evaluation.to_jsonl(), encoding="utf-8")
        client.log_artifact(run_id, str(path), "rows")


def _log_plots(client: MlflowClient, run_id: str, compilation: Compilation) -> None:
    try:
        figures = {"score_against_spend.png": compilation.plot(), "front.png": compilation.plot_front()}
    except OneTurnError as missing:  # matplotlib isn't installed
        _log.info("The plots of the compile aren't logged: %s", missing)
        return
    for name, figure in figures.items():
        client.log_figure(run_id, figure, name)
