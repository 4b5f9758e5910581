"""LM judges as metrics, based on MLflow's scorers.

MLflow selects the LM by a URI: ``openai:/<model>`` (with ``OPENAI_API_KEY``, and ``OPENAI_API_BASE`` for any server
with OpenAI's chat completions), ``endpoints:/<name>`` for an endpoint of Databricks Model Serving, ``databricks`` for
the judges hosted by Databricks, and other providers by their names. A judge that isn't configured or fails gives no
score, with the reason as feedback; the row keeps its other scores.
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

# What MLflow raises if the LM call fails, or the reply isn't a verdict.
_UNJUDGED = (MlflowException, OSError, ImportError, LookupError, ValueError, TypeError)
_SCORES = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "pass": 1.0, "fail": 0.0}


def judges(config: JudgeConfig) -> list[Scorer]:
    """The configured judges: groundedness, relevance, and guidelines if there are any.

    Without a configured LM they give no score; their feedback says so.
    """
    scorers = [groundedness(config.model), relevance(config.model)]
    return [*scorers, guidelines(config.guidelines, config.model)] if config.guidelines else scorers


def groundedness(model: str | None, *, name: str = "groundedness") -> Scorer:
    """Whether the tool results of the run support every statement of the answer: 1 or 0.

    Uses the judge of MLflow's ``RetrievalGroundedness``, called once with all tool results of the run. It needs no
    trace, so it also judges an endpoint's answers.

    Args:
        model: MLflow's URI of the judge's LM; ``None`` if there is none.
        name: the column's name.
    """

    def ask(example: dspy.Example, prediction: Any) -> Any:
        context = context_of(run_record(prediction))
        if not context:
            raise NotLabelled("Not judged: the run has no tool results to check the answer against.")
        return is_grounded(
            request=_request(example), response=answer_text(prediction), context=context, name=name, model=model
        )

    return _judge(name, model, ask)


def relevance(model: str | None, *, name: str = "relevance") -> Scorer:
    """Whether the answer is about the question: 1 or 0 (MLflow's ``RelevanceToQuery``); see ``groundedness``."""
    return _judge(name, model, lambda *run: _ask(RelevanceToQuery(name=name, model=model), *run))


def correctness(model: str | None, *, name: str = "correctness") -> Scorer:
    """Whether the answer contains ``expected_facts``, else ``expected_response`` or ``answer`` (``Correctness``)."""
    return _judge(name, model, lambda *run: _ask(Correctness(name=name, model=model), *run))


def guidelines(rules: Sequence[str], model: str | None, *, name: str = "guidelines") -> Scorer:
    """Whether the answer follows rules in natural language: 1 or 0 (MLflow's ``Guidelines``); see ``groundedness``."""
    return _judge(
        name, model, lambda *run: _ask(Guidelines(name=name, guidelines=list(rules), model=model), *run), rules
    )


def from_mlflow(judge: MlflowScorer, *, name: str | None = None) -> Scorer:
    """Use any MLflow scorer as a metric.

    A scorer that reads the trace needs ``oneturn.evaluate(…, trace=True)``. If it returns several feedbacks, the score
    is their mean.

    Args:
        judge: the MLflow scorer.
        name: the column's name; ``None`` for the scorer's name.
    """
    model = str(getattr(judge, "model", None) or "default")
    return _judge(name or judge.name, model, lambda *run: _ask(judge, *run), settings=[_instructions(judge)])


def _instructions(judge: MlflowScorer) -> str:
    """Return what decides a judge's verdicts besides its model, such as its guidelines: another text, another judge."""
    texts = {name: getattr(judge, name, None) for name in ("instructions", "guidelines", "feedback_value_type")}
    return repr({name: text for name, text in texts.items() if text is not None})


def context_of(record: RunRecord) -> list[dict[str, Any]]:
    """The tool results of a run, as the retrieved context that MLflow's judges take."""
    context = []
    for call in record.tool_calls:
        if call.get("sources"):
            non_empty = [passage for passage in passages(call) if passage["page_content"]]
            context += [{"content": each["page_content"], "doc_uri": each["metadata"]["doc_uri"]} for each in non_empty]
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
            f"Not judged: {judge.name} needs the trace of the run, and there is none; evaluate with trace=True."
        )
    inputs = jsonable(example.inputs().toDict())
    return judge.run(inputs=inputs, outputs=answer_text(prediction), expectations=_expectations(example), trace=trace)


def _needs_trace(judge: MlflowScorer) -> bool:
    """Whether an MLflow judge needs a trace; a user's own scorer raises its own error."""
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
    inputs = example.inputs().toDict()
    question = inputs.get("question")
    return question if isinstance(question, str) else str(jsonable(inputs))


def _verdict(result: Any) -> Verdict:
    feedbacks = result if isinstance(result, list) else [result]
    values = [_value(each) for each in feedbacks]
    if not values:
        return Verdict(None, "Not judged: the judge returned no feedback.")
    rationales = [str(each.rationale) for each in feedbacks if isinstance(each, Feedback) and each.rationale]
    return Verdict(math.fsum(values) / len(values), " ".join(rationales))


def _value(result: Any) -> float:
    """A verdict as a number; yes is 1, no is 0."""
    if isinstance(result, Feedback) and result.error is not None:
        raise ValueError(result.error.error_message or result.error.error_code)
    value = result.value if isinstance(result, Feedback) else result
    value = getattr(value, "value", value)  # MLflow's yes and no are enum members
    if isinstance(value, bool | int | float):
        return float(value)
    if str(value).strip().lower() not in _SCORES:
        raise ValueError(f"the judge returned {value!r}, neither yes nor no")
    return _SCORES[str(value).strip().lower()]
