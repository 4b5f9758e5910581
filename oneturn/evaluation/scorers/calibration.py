"""How far a judge can be trusted: its agreement with people, on answers that they have judged."""

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
from oneturn.evaluation.data_sources import Unreadable, source_of
from oneturn.evaluation.run_record import RunRecord, with_record
from oneturn.evaluation.scorers.base import Scorer
from oneturn.evaluation.statistics import cohens_kappa, kappa_interval

if TYPE_CHECKING:
    from rich.console import RenderableType

_LABELS = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_PREDICTED = "pred_"


@dataclass(frozen=True)
class Calibration:
    """How a judge agrees with people.

    Attributes:
        judge: its name.
        judged: answers that it judged; those it couldn't judge count nowhere.
        unjudged: answers that it couldn't judge.
        accuracy: how often it agrees, 0 to 1.
        accuracy_interval: 95%, Wilson's.
        kappa: Cohen's (1960), agreement beyond chance: 1 for all, 0 for what chance gives; NaN where the judge and
            the people have both said the same of every answer, so that it can't be told.
        kappa_interval: 95%, percentile bootstrap (Efron 1979), the same each time.
        confusion: how often which was said: ``both_yes``, ``both_no``, ``judge_yes`` (people: no), ``judge_no``.
        min_kappa: the kappa from which it is trusted.
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
        """Whether its kappa is high enough."""
        return self.kappa >= self.min_kappa  # not so for NaN

    @property
    def verdict(self) -> str:
        """The result in a line."""
        if math.isnan(self.kappa):
            return f"{self.judge} can't be told from chance: everybody said the same of all {self.judged} answers."
        low, high = self.kappa_interval
        found = f"kappa {self.kappa:.2f} (95% interval {low:.2f} to {high:.2f}, {self.judged} answers)"
        if self.trusted:
            return f"{self.judge} agrees with people: {found}."
        return f"Don't trust {self.judge}: {found}, below {self.min_kappa:.2f}."

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without the rows; what can't be told is ``None``."""
        told = {name: value for name, value in asdict(self).items() if name != "rows"}
        plain = {"trusted": self.trusted, "verdict": self.verdict, **told, "confusion": dict(self.confusion)}
        for name in ("kappa_interval", "accuracy_interval"):
            plain[name] = [_known(bound) for bound in plain[name]]
        return {**plain, "kappa": _known(self.kappa)}

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
        told = f"Accuracy {self.accuracy:.1%} (95% interval {low:.1%} to {high:.1%}); {self.unjudged} not judged."
        return Group(table, told)


def calibrate_judge(
    judge: Scorer,
    data: Any,
    *,
    label: str = "label",
    inputs: Sequence[str] = ("question",),
    min_kappa: float | None = None,
    threads: int = 4,
) -> Calibration:
    """Let a judge judge answers that people have judged, and see how far it agrees.

    Args:
        judge: such as :func:`oneturn.evaluation.scorers.groundedness`; its verdict is yes from a score of 0.5 on.
        data: rows, as :func:`oneturn.evaluate` takes them, each with the inputs, the ``answer`` that was given, what
            people said of it, and for groundedness the ``context``: a text or a list of texts. The rows that
            ``evaluate`` has written will do, with a label: their ``pred_…`` columns are what is judged.
        label: the field with what people said: true or false, 1 or 0, yes or no.
        inputs: the fields that were given.
        min_kappa: the kappa from which a judge is trusted; ``None`` for 0.6 ("substantial": Landis and Koch 1977).
        threads: answers at the same time.

    Raises:
        DataError: a row can't be read, or has no label.
        OneTurnError: the judge judged none of the answers.
    """
    examples = [_labelled(number, row, label) for number, row in enumerate(source_of(data, inputs).rows(), start=1)]
    with ThreadPoolExecutor(threads) as pool:
        verdicts = list(pool.map(lambda found: judge.judge(found[0], _given(found[0])), examples))
    rows = pd.DataFrame(
        {**example.inputs().toDict(), "label": said, "verdict": verdict.score, "feedback": verdict.feedback}
        for (example, said), verdict in zip(examples, verdicts, strict=True)
    )
    judged = rows[rows["verdict"].notna()]
    if judged.empty:
        raise OneTurnError(
            f"{judge.name} judged none of the {len(rows)} answers. The first: {rows['feedback'].iloc[0]}"
        )
    people = judged["label"].to_numpy(dtype=bool)
    said = judged["verdict"].to_numpy(dtype=float) >= 0.5
    agreed = int((people == said).sum())
    span = binomtest(agreed, len(judged)).proportion_ci(method="wilson")
    return Calibration(
        judge=judge.name,
        judged=len(judged),
        unjudged=len(rows) - len(judged),
        accuracy=agreed / len(judged),
        accuracy_interval=(float(span.low), float(span.high)),
        kappa=float(cohens_kappa(people, said)),
        kappa_interval=kappa_interval(people, said),
        confusion={
            "both_yes": int((people & said).sum()),
            "both_no": int((~people & ~said).sum()),
            "judge_yes": int((~people & said).sum()),
            "judge_no": int((people & ~said).sum()),
        },
        min_kappa=JudgeConfig().min_kappa if min_kappa is None else min_kappa,
        rows=rows,
    )


def _labelled(number: int, example: dspy.Example | Unreadable, label: str) -> tuple[dspy.Example, bool]:
    if isinstance(example, Unreadable):
        raise DataError(example.reason)
    value = example.get(label)
    said = value if isinstance(value, bool | np.bool_) else _LABELS.get(str(value).strip().lower())
    if said is None:
        raise DataError(f"row {number}: {label!r} is {value!r}; it should say what people said: true or false.")
    return example, bool(said)


def _given(example: dspy.Example) -> dspy.Prediction:
    """The answer that was judged."""
    written = {name.removeprefix(_PREDICTED): value for name, value in example.items() if name.startswith(_PREDICTED)}
    calls = _listed(written.pop("tool_calls", None))
    sources = _listed(written.pop("sources", None))
    answered = written or {name: example[name] for name in ("answer", "citations") if name in example}
    context = example.get("context")
    for text in [context] if isinstance(context, str) else context or ():
        calls.append({"name": "context", "arguments": {}, "output": _text(text)})
    return with_record(dspy.Prediction(**answered), RunRecord(tuple(calls), tuple(sources)))


def _listed(value: Any) -> list[Any]:
    found = json.loads(value) if isinstance(value, str) else value
    return list(found) if found is not None else []


def _text(found: Any) -> str:
    return str(found.get("content") or found.get("page_content")) if isinstance(found, Mapping) else str(found)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
