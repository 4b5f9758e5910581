"""A compile as MLflow runs: a parent run, with a child run for each candidate that was measured."""

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
from oneturn.compilation.render import readable
from oneturn.compilation.result import Candidate
from oneturn.config.tracking import use_tracking
from oneturn.core.secrets import refuse_secrets_in
from oneturn.core.usage import Totals
from oneturn.datasets.mlflow import to_mlflow_dataset
from oneturn.errors import OneTurnError
from oneturn.evaluation.result import Evaluation
from oneturn.evaluation.statistics import interval

if TYPE_CHECKING:
    from oneturn.agent import Agent
    from oneturn.compilation.recipes import Estimate
    from oneturn.compilation.result import Compilation

KEY = "oneturn.compile"
"""The tag by which a compile that is gone on with finds its run."""

NUMBER = "oneturn.candidate"
FAILURES = 10
"""So many of the worst rows are traced."""

_log = logging.getLogger(__name__)


class MlflowRuns(CompileCallback):
    """Writes a compile to the agent's tracking store while it runs; one that is gone on with goes on in its runs.

    Attributes:
        run_id: the parent run's.
    """

    def __init__(self) -> None:
        self.run_id = ""
        self._experiment = ""
        self._known: dict[int, Run] = {}
        self._best = 0.0

    def on_start(self, agent: Agent, recipe: str, key: str, estimate: Estimate | None) -> None:
        """Open the parent run, or the one that an earlier start of this compile has opened."""
        use_tracking(agent.config.mlflow)
        client = MlflowClient()
        experiment = mlflow.get_experiment_by_name(agent.config.mlflow.experiment)
        if experiment is None:
            raise OneTurnError(f"There is no MLflow experiment {agent.config.mlflow.experiment!r}.")
        self._experiment = experiment.experiment_id
        begun = _find(client, self._experiment, f"tags.`{KEY}` = '{key}'")
        if begun:
            self.run_id = begun[0].info.run_id
            client.update_run(self.run_id, status="RUNNING")
            children = _find(client, self._experiment, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.run_id}'")
            self._known = {int(run.data.tags[NUMBER]): run for run in children}
        else:
            tags = {KEY: key, MLFLOW_RUN_NAME: f"compile {agent.name}, {recipe}"}
            self.run_id = client.create_run(self._experiment, tags=tags).info.run_id
        settings = agent.config.compile
        params = {"agent": agent.name, "recipe": recipe, "lm": agent.config.lm.model, "seed": str(settings.seed)}
        if begun and params.items() <= begun[0].data.params.items():  # they are written last
            return
        if estimate is not None:
            client.log_dict(self.run_id, estimate.to_dict(), "estimate.json")
        examples = {"train": agent.examples("train"), "dev": agent.examples("dev")[: settings.dev_examples]}
        client.log_inputs(self.run_id, [_dataset(agent.name, split, rows) for split, rows in examples.items()])
        client.log_batch(self.run_id, params=[Param(name, value) for name, value in params.items()])

    def on_candidate(self, candidate: Candidate) -> None:
        """A child run with its score and its prompts; a point of the parent's curves.

        Raises:
            ProgramError: its prompts hold what looks like a secret: nothing of it is written.
        """
        if not self.run_id:
            return
        if candidate.full:
            self._best = max(self._best, candidate.score)
        known = self._known.get(candidate.number)
        if known is not None and _tells_of(known, candidate):
            return
        prompts = readable(candidate.program)
        refuse_secrets_in({"prompts": prompts}, f"Candidate {candidate.number}")
        client = MlflowClient()
        if candidate.full:
            curves = {"score": candidate.score, "best_score": self._best, **_spent(candidate.spent, candidate.seconds)}
            client.log_batch(self.run_id, metrics=_metrics(curves, step=candidate.number))
        run_id = known.info.run_id if known is not None else self._child(client, candidate)
        low, high = interval(candidate.scores)
        figures = {"score": candidate.score, "score_low": low, "score_high": high, "rows": len(candidate.scores)}
        figures |= _spent(candidate.spent, candidate.seconds)
        client.log_batch(run_id, metrics=_metrics(figures, step=0))
        client.log_text(run_id, prompts, "prompts.md")
        client.set_terminated(run_id)

    def _child(self, client: MlflowClient, candidate: Candidate) -> str:
        name = "uncompiled" if candidate.number == 0 else f"candidate {candidate.number}"
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, MLFLOW_RUN_NAME: name, NUMBER: str(candidate.number)}
        tags["oneturn.full"] = str(candidate.full).lower()
        run_id: str = client.create_run(self._experiment, tags=tags).info.run_id
        return run_id

    def on_interrupted(self, error: BaseException) -> None:
        """Say that it isn't at work any more; the next start says that it is again."""
        if self.run_id:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            MlflowClient().set_terminated(self.run_id, status)

    def on_end(self, compilation: Compilation) -> None:
        """The result: figures, the compiled program, the plot, and traces of the rows that it gets wrong."""
        if not self.run_id:
            return
        client = MlflowClient()
        for when, evaluation in (("before", compilation.before), ("after", compilation.after)):
            figures = {f"{when}_{name}": value for name, value in evaluation.summary().items()}
            client.log_batch(self.run_id, metrics=_metrics(figures, step=0))
        client.log_batch(self.run_id, metrics=_metrics(compilation.manifest.spend, step=0, prefix="spent_"))
        client.set_tag(self.run_id, "oneturn.stopped", compilation.stopped or "no")
        client.log_artifact(self.run_id, str(compilation.path), "compiled")
        client.log_text(self.run_id, readable(compilation.program), "prompts.md")
        _log_rows(client, self.run_id, compilation.after)
        _log_plot(client, self.run_id, compilation)
        self._trace_failures(client, compilation)
        client.set_terminated(self.run_id)

    def _trace_failures(self, client: MlflowClient, compilation: Compilation) -> None:
        rows = compilation.after.rows
        worst = rows[rows["score"] < 1].nsmallest(FAILURES, "score", keep="first")
        traces = [compilation.trace(int(place)) for place in worst.index]
        mlflow.flush_trace_async_logging()
        if found := [trace for trace in traces if trace is not None]:
            client.link_traces_to_run(found, self.run_id)


def _find(client: MlflowClient, experiment: str, condition: str) -> Sequence[Run]:
    found: Sequence[Run] = client.search_runs([experiment], condition, max_results=1000)
    return found


def _tells_of(run: Run, candidate: Candidate) -> bool:
    """Whether an earlier start has written all of the candidate, judged as it is judged now."""
    return run.info.status == "FINISHED" and run.data.metrics.get("score") == candidate.score


def _metrics(values: Mapping[str, float], step: int, prefix: str = "") -> list[Metric]:
    now = int(pd.Timestamp.now().timestamp() * 1000)
    return [Metric(prefix + name, float(value), now, step) for name, value in values.items()]


def _spent(totals: Totals, seconds: float) -> dict[str, float]:
    cost = {} if totals.cost is None else {"cost": totals.cost}
    return {"lm_calls": totals.lm_calls, "tokens": totals.tokens, "minutes": seconds / 60, **cost}


def _dataset(agent: str, split: str, examples: Sequence[dspy.Example]) -> DatasetInput:
    entity = to_mlflow_dataset(agent, split, examples)._to_mlflow_entity()
    return DatasetInput(entity, tags=[InputTag(MLFLOW_DATASET_CONTEXT, split)])


def _log_rows(client: MlflowClient, run_id: str, evaluation: Evaluation) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "after.jsonl"
        evaluation.rows.to_json(path, orient="records", lines=True, force_ascii=False)
        client.log_artifact(run_id, str(path), "rows")


def _log_plot(client: MlflowClient, run_id: str, compilation: Compilation) -> None:
    try:
        figure = compilation.plot()
    except OneTurnError as missing:  # no matplotlib here
        _log.info("The plot of the compile isn't logged: %s", missing)
        return
    client.log_figure(run_id, figure, "score_against_spend.png")
