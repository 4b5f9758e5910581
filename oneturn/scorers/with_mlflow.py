"""``mlflow.genai.evaluate`` with what oneturn evaluates, and with its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import mlflow
from dspy.adapters.utils import serialize_for_json
from mlflow.entities import AssessmentError, Feedback, SpanType, Trace
from mlflow.genai.scorers import Scorer as MlflowScorer
from mlflow.genai.scorers import scorer as mlflow_scorer

from oneturn.batch.agent_evaluation import example_inputs, example_labels
from oneturn.batch.targets import Answered, EndpointTarget, target_of
from oneturn.evaluation import Metric
from oneturn.scorers.responses import as_response, prediction_of
from oneturn.scorers.traces import tell_of

Fields = dict[str, Any]


def predict_fn(target: Any, *, lm: dspy.BaseLM | None = None, api_key: str | None = None) -> Callable[..., Fields]:
    """The predict function of a program, an agent, a URL or a logged model, for ``mlflow.genai.evaluate``.

    It is called with a row's ``inputs`` as keyword arguments and gives a response of the Responses protocol, whose
    ``custom_outputs`` are all outputs. Each call is one trace, with ``TOOL`` and ``RETRIEVER`` spans also for a URL.

    MLflow calls it once more than there are rows, to try it out, unless the environment variable
    ``MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION`` is ``true``.

    Args:
        target: as :func:`oneturn.evaluate` takes it.
        lm: the LM to use with a program; ``None`` for the one that is configured now.
        api_key: the token for a URL.

    Raises:
        DataError: target is of no known kind.
    """
    # MLflow calls it in threads of its own, which dspy.context doesn't reach.
    answering = target_of(target, lm or dspy.settings.lm, api_key, trace=False)

    def predict(**inputs: Any) -> Fields:
        fields = example_inputs(inputs, answering.inputs)
        names = [name for name in fields if not answering.inputs or name in answering.inputs]
        answered = Answered()
        with mlflow.start_span("predict", SpanType.AGENT) as span:
            span.set_inputs(inputs)
            answering.answer(dspy.Example(**fields).with_inputs(*names), answered)
            if isinstance(answering, EndpointTarget):
                tell_of(answered.tool_calls)
            response = as_response(answered)
            span.set_outputs(serialize_for_json(response))
        return response

    return predict


def as_mlflow(metric: Metric, name: str | None = None) -> MlflowScorer:
    """A metric as a scorer of ``mlflow.genai.evaluate``, which gives the same scores as ``oneturn.evaluate``.

    It reads what :func:`predict_fn` gives; what a served agent gives; or the outputs and spans of a trace. A row
    without an answer has the score 0, and one that the metric can't judge an error that says so.

    Args:
        metric: of DSPy's signature.
        name: the scorer's; ``None`` for the metric's own.
    """
    called = name or str(getattr(metric, "__name__", type(metric).__name__))

    @mlflow_scorer(name=called)
    def judged(
        inputs: Any = None, outputs: Any = None, expectations: Any = None, trace: Trace | None = None
    ) -> Feedback:
        if trace is not None and (inputs is None or outputs is None):
            asked, told = _root(trace)
            inputs, outputs = asked if inputs is None else inputs, told if outputs is None else outputs
        prediction = prediction_of(outputs, trace)
        if prediction is None:
            return Feedback(name=called, value=0.0, rationale="The run gave no answer.")
        given = {**example_inputs(inputs or {}), **(inputs or {})}
        example = dspy.Example(**{**example_labels(expectations or {}), **given}).with_inputs(*given)
        return _feedback(called, metric(example, prediction))

    return judged


def _root(trace: Trace) -> tuple[Any, Any]:
    """What a trace's outermost span was given, and what it gave."""
    root = next((span for span in trace.data.spans if span.parent_id is None), None)
    return (root.inputs, root.outputs) if root is not None else (None, None)


def _feedback(name: str, result: Any) -> Feedback:
    if not isinstance(result, dspy.Prediction):
        return Feedback(name=name, value=float(result))
    told = result.get("feedback")
    if result.score is None:
        return Feedback(name=name, error=AssessmentError(error_code="NOT_JUDGED", error_message=told))
    return Feedback(name=name, value=float(result.score), rationale=told)
