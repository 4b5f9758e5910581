"""LM judges as metrics: MLflow's own scorers ask the LM, and read what it says.

MLflow finds the LM by a URI: ``openai:/<model>`` (with ``OPENAI_API_KEY``, and ``OPENAI_API_BASE`` for any server that
speaks OpenAI's chat completions), ``endpoints:/<name>`` for an endpoint of Databricks Model Serving, ``databricks`` for
the judges that Databricks keeps, and other providers by their names. A judge that isn't configured, or can't be asked,
gives no score and says why: no row loses its other scores by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import dspy
import mlflow
from mlflow.entities import Feedback
from mlflow.exceptions import MlflowException
from mlflow.genai.judges import is_grounded
from mlflow.genai.scorers import Correctness, Guidelines, RelevanceToQuery
from mlflow.genai.scorers import Scorer as MlflowScorer

from oneturn.config import JudgeConfig
from oneturn.core.serialization import jsonable
from oneturn.evaluation.run_record import RunRecord, run_record
from oneturn.evaluation.scorers.base import NotLabelled, Scorer, Verdict, scorer
from oneturn.evaluation.scorers.mlflow import answer_text, output_text, passages
from oneturn.tools.errors import redacted_line

ABSENT = "Not judged: no judge is configured; set judge.model, or give model=."

# What MLflow lets through when an LM can't be asked, or replies with something else than a verdict.
_UNJUDGED = (MlflowException, OSError, ImportError, LookupError, ValueError, TypeError)
_SCORES = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "pass": 1.0, "fail": 0.0}


def judges(config: JudgeConfig) -> list[Scorer]:
    """The configured judges, or in their place such as say that none is: groundedness, relevance, guidelines if any."""
    found = [groundedness(config.model), relevance(config.model)]
    return [*found, guidelines(config.guidelines, config.model)] if config.guidelines else found


def groundedness(model: str | None, *, name: str = "groundedness") -> Scorer:
    """Whether all that the answer says is in what the run's tools gave: 1 or 0.

    The judge of MLflow's ``RetrievalGroundedness``, asked once about all tool results of the run; it needs no trace, so
    that it judges an endpoint's answers, too.

    Args:
        model: MLflow's URI of the judge's LM; ``None`` where there is no judge.
        name: of the column.
    """

    def ask(example: dspy.Example, prediction: Any) -> Any:
        context = context_of(run_record(prediction))
        if not context:
            raise NotLabelled("Not judged: the run's tools gave nothing that the answer could rest on.")
        return is_grounded(
            request=_request(example), response=answer_text(prediction), context=context, name=name, model=model
        )

    return _judge(name, model, ask)


def relevance(model: str | None, *, name: str = "relevance") -> Scorer:
    """Whether the answer is about the question: 1 or 0 (MLflow's ``RelevanceToQuery``); see ``groundedness``."""
    return _judge(name, model, lambda *run: _ask(RelevanceToQuery(name=name, model=model), *run))


def correctness(model: str | None, *, name: str = "correctness") -> Scorer:
    """Whether the answer holds ``expected_facts``, or else ``expected_response`` or ``answer`` (``Correctness``)."""
    return _judge(name, model, lambda *run: _ask(Correctness(name=name, model=model), *run))


def guidelines(rules: Sequence[str], model: str | None, *, name: str = "guidelines") -> Scorer:
    """Whether the answer keeps to rules in plain words: 1 or 0 (MLflow's ``Guidelines``); see ``groundedness``."""
    return _judge(
        name, model, lambda *run: _ask(Guidelines(name=name, guidelines=list(rules), model=model), *run), rules
    )


def from_mlflow(judge: MlflowScorer, *, name: str | None = None) -> Scorer:
    """Any scorer of MLflow as a metric.

    One that reads the trace needs ``oneturn.evaluate(…, trace=True)``. Of several feedbacks, the mean is the score.

    Args:
        judge: the scorer.
        name: of the column; ``None`` for the scorer's own.
    """
    return _judge(name or judge.name, str(getattr(judge, "model", None) or "default"), lambda *run: _ask(judge, *run))


def context_of(record: RunRecord) -> list[dict[str, Any]]:
    """What a run's tools gave, as MLflow's judges read retrieved context."""
    context = []
    for call in record.tool_calls:
        if call.get("sources"):
            found = [passage for passage in passages(call) if passage["page_content"]]
            context += [{"content": each["page_content"], "doc_uri": each["metadata"]["doc_uri"]} for each in found]
        elif call.get("output"):
            context.append({"content": output_text(call)})
    return context


def _judge(name: str, model: str | None, ask: Callable[[dspy.Example, Any], Any], settings: Any = ()) -> Scorer:
    def judge(example: dspy.Example, prediction: Any) -> Verdict:
        if model is None:
            return Verdict(None, ABSENT)
        try:
            return _verdict(ask(example, prediction))
        except _UNJUDGED as error:
            return Verdict(None, f"Not judged: {redacted_line(str(error)) or type(error).__name__}")

    return scorer(name, judge, model=model, settings=tuple(settings))


def _ask(judge: MlflowScorer, example: dspy.Example, prediction: Any) -> Any:
    trace_id = run_record(prediction).trace_id
    trace = mlflow.get_trace(trace_id, silent=True, flush=True) if trace_id else None
    if trace is None and _needs_trace(judge):
        raise NotLabelled(
            f"Not judged: {judge.name} reads the trace of a run, and there is none; evaluate with trace=True."
        )
    told = jsonable(example.inputs().toDict())
    return judge.run(inputs=told, outputs=answer_text(prediction), expectations=_expectations(example), trace=trace)


def _needs_trace(judge: MlflowScorer) -> bool:
    """Whether a judge of MLflow's reads nothing but the trace; a scorer of a user's own says itself what it misses."""
    fields = getattr(judge, "get_input_fields", None)
    return fields is not None and "inputs" not in {field.name for field in fields()}


def _expectations(example: dspy.Example) -> dict[str, Any]:
    labels = {name: jsonable(value) for name, value in example.labels().items() if value is not None}
    if "expected_facts" in labels:
        labels.pop("expected_response", None)
    elif "answer" in labels:
        labels.setdefault("expected_response", labels["answer"])
    return labels


def _request(example: dspy.Example) -> str:
    given = example.inputs().toDict()
    question = given.get("question")
    return question if isinstance(question, str) else str(jsonable(given))


def _verdict(told: Any) -> Verdict:
    feedbacks = told if isinstance(told, list) else [told]
    values = [_value(each) for each in feedbacks]
    if not values:
        return Verdict(None, "Not judged: the judge said nothing.")
    words = [str(each.rationale) for each in feedbacks if isinstance(each, Feedback) and each.rationale]
    return Verdict(math.fsum(values) / len(values), " ".join(words))


def _value(told: Any) -> float:
    """A verdict as a number, 0 to 1 where it is yes or no."""
    if isinstance(told, Feedback) and told.error is not None:
        raise ValueError(told.error.error_message or told.error.error_code)
    value = told.value if isinstance(told, Feedback) else told
    value = getattr(value, "value", value)  # MLflow's yes and no are an enum
    if isinstance(value, bool | int | float):
        return float(value)
    if str(value).strip().lower() not in _SCORES:
        raise ValueError(f"the judge said {value!r}, neither yes nor no")
    return _SCORES[str(value).strip().lower()]
