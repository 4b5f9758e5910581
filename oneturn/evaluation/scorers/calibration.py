"""Calibrate an LM judge: measure its agreement with human labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import dspy
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from oneturn.config import JudgeConfig
from oneturn.errors import DataError, OneTurnError
from oneturn.evaluation.data_sources import Unreadable, build_source
from oneturn.evaluation.run_record import RUN_COLUMNS, RunRecord, with_record
from oneturn.evaluation.scorers.base import Scorer
from oneturn.evaluation.statistics import cohens_kappa, kappa_interval

if TYPE_CHECKING:
    from rich.console import RenderableType

_LABELS = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_PREDICTED = "pred_"


@dataclass(frozen=True)
class Calibration:
    """The agreement of a judge with human labels.

    Attributes:
        judge: the judge's name.
        judged: number of judged answers; answers without a verdict are excluded from all figures.
        unjudged: number of answers that the judge gave no verdict for.
        accuracy: share of answers on which judge and label agree, 0 to 1.
        accuracy_interval: 95% Wilson interval.
        kappa: Cohen's kappa (1960), agreement beyond chance: 1 for full agreement, 0 for chance agreement; NaN if the
            judge and the labels give the same value for every answer, because kappa is undefined then.
        kappa_interval: 95% percentile bootstrap interval (Efron 1979), deterministic.
        confusion: counts ``both_yes``, ``both_no``, ``judge_yes`` (label: no) and ``judge_no`` (label: yes).
        min_kappa: the smallest kappa at which the judge is trusted.
        rows: each answer with ``label``, ``verdict`` and the judge's ``feedback``.
    """

    judge: str
    judged: int
    unjudged: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    kappa: float
    kappa_interval: tuple[float, float]
    confusion: Mapping[str, int]
    min_kappa: float
    rows: pd.DataFrame = field(repr=False)

    @property
    def trusted(self) -> bool:
        """Whether kappa is at least ``min_kappa``."""
        return self.kappa >= self.min_kappa  # False for NaN

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if math.isnan(self.kappa):
            return f"Kappa of {self.judge} is undefined: judge and people gave all {self.judged} answers one label."
        low, high = self.kappa_interval
        measured = f"kappa {self.kappa:.2f} (95% interval {low:.2f} to {high:.2f}, {self.judged} answers)"
        if self.trusted:
            return f"{self.judge} agrees with people: {measured}."
        return f"Don't trust {self.judge}: {measured}, below {self.min_kappa:.2f}."

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without the rows; undefined figures are ``None``."""
        fields = {name: value for name, value in asdict(self).items() if name != "rows"}
        plain = {"trusted": self.trusted, "verdict": self.verdict, **fields, "confusion": dict(self.confusion)}
        for name in ("kappa_interval", "accuracy_interval"):
            plain[name] = [_none_if_nan(bound) for bound in plain[name]]
        return {**plain, "kappa": _none_if_nan(self.kappa)}

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def __rich__(self) -> RenderableType:
        """As tables for a terminal."""
        from rich.console import Group
        from rich.table import Table

        low, high = self.accuracy_interval
        table = Table("", "people: yes", "people: no", title=self.verdict, title_justify="left")
        table.add_row("judge: yes", str(self.confusion["both_yes"]), str(self.confusion["judge_yes"]))
        table.add_row("judge: no", str(self.confusion["judge_no"]), str(self.confusion["both_no"]))
        accuracy = f"Accuracy {self.accuracy:.1%} (95% interval {low:.1%} to {high:.1%}); {self.unjudged} not judged."
        return Group(table, accuracy)


def calibrate_judge(
    judge: Scorer,
    data: Any,
    *,
    label: str = "label",
    inputs: Sequence[str] = ("question",),
    min_kappa: float | None = None,
    threads: int = 4,
) -> Calibration:
    """Run a judge on answers with human labels and measure the agreement.

    Args:
        judge: such as :func:`oneturn.evaluation.scorers.groundedness`; a score of 0.5 or more is a yes.
        data: rows, as :func:`oneturn.evaluate` takes them, each with the inputs, the ``answer``, the human label, and
            for groundedness the ``context``: a text or a list of texts. Rows written by ``evaluate`` also work once
            they have a label: their ``pred_…`` columns are judged.
        label: the field with the human label: true or false, 1 or 0, yes or no.
        inputs: the input fields.
        min_kappa: the smallest kappa at which a judge is trusted; ``None`` for 0.6 ("substantial": Landis and Koch
            1977).
        threads: number of answers judged in parallel.

    Raises:
        DataError: a row can't be read, or has no label.
        OneTurnError: the judge gave no verdict for any answer.
    """
    examples = [_labelled(number, row, label) for number, row in enumerate(build_source(data, inputs).rows(), start=1)]
    with ThreadPoolExecutor(threads) as pool:
        verdicts = list(pool.map(lambda labelled: judge.judge(labelled[0], _prediction(labelled[0])), examples))
    rows = pd.DataFrame(
        {**example.inputs().toDict(), "label": human, "verdict": verdict.score, "feedback": verdict.feedback}
        for (example, human), verdict in zip(examples, verdicts, strict=True)
    )
    judged = rows[rows["verdict"].notna()]
    if judged.empty:
        raise OneTurnError(
            f"{judge.name} gave no verdict for any of the {len(rows)} answers. First reason: {rows['feedback'].iloc[0]}"
        )
    people = judged["label"].to_numpy(dtype=bool)
    verdict_yes = judged["verdict"].to_numpy(dtype=float) >= 0.5
    agreed = int((people == verdict_yes).sum())
    span = binomtest(agreed, len(judged)).proportion_ci(method="wilson")
    return Calibration(
        judge=judge.name,
        judged=len(judged),
        unjudged=len(rows) - len(judged),
        accuracy=agreed / len(judged),
        accuracy_interval=(float(span.low), float(span.high)),
        kappa=float(cohens_kappa(people, verdict_yes)),
        kappa_interval=kappa_interval(people, verdict_yes),
        confusion={
            "both_yes": int((people & verdict_yes).sum()),
            "both_no": int((~people & ~verdict_yes).sum()),
            "judge_yes": int((~people & verdict_yes).sum()),
            "judge_no": int((people & ~verdict_yes).sum()),
        },
        min_kappa=JudgeConfig().min_kappa if min_kappa is None else min_kappa,
        rows=rows,
    )


def _labelled(number: int, example: dspy.Example | Unreadable, label: str) -> tuple[dspy.Example, bool]:
    if isinstance(example, Unreadable):
        raise DataError(example.reason)
    value = example.get(label)
    label_value = value if isinstance(value, bool | np.bool_) else _LABELS.get(str(value).strip().lower())
    if label_value is None:
        raise DataError(f"row {number}: {label!r} is {value!r}; it must be the human label: true or false.")
    return example, bool(label_value)


def _prediction(example: dspy.Example) -> dspy.Prediction:
    """The answer to judge, as a prediction."""
    outputs = {name.removeprefix(_PREDICTED): value for name, value in example.items() if name.startswith(_PREDICTED)}
    calls, sources, _ = (_as_list(example.get(name)) for name in RUN_COLUMNS)
    fields = outputs or {name: example[name] for name in ("answer", "citations") if name in example}
    context = example.get("context")
    for text in [context] if isinstance(context, str) else context or ():
        calls.append({"name": "context", "arguments": {}, "output": _text(text)})
    return with_record(dspy.Prediction(**fields), RunRecord(tuple(calls), tuple(sources)))


def _as_list(value: Any) -> list[Any]:
    items = json.loads(value) if isinstance(value, str) else value
    return list(items) if items is not None else []


def _text(passage: Any) -> str:
    return str(passage.get("content") or passage.get("page_content")) if isinstance(passage, Mapping) else str(passage)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
