"""``POST /agent/feedback``: a person's judgement of an answer, as MLflow assessments on its trace."""

from __future__ import annotations

from typing import Annotated, Any

import mlflow
import pydantic
from mlflow.entities import AssessmentSource, AssessmentSourceType
from mlflow.exceptions import MlflowException
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oneturn.core.fields import field_type
from oneturn.core.serialization import plain
from oneturn.core.validation import problems_of
from oneturn.errors import AgentError
from oneturn.responses import ResponsesAdapter
from oneturn.serving.access import is_own_origin
from oneturn.serving.http_errors import error_response, invalid_request
from oneturn.serving.page.traces import SERVED_BY
from oneturn.serving.served_agent import ServedAgent

CORRECT = "correct"
"""The name of the assessment with the person's yes or no."""

COMMENT = "comment"
"""The name of the assessment with a comment that has no yes or no."""

_EXPECTED_RESPONSE = "expected_response"  # MLflow's name, for an agent whose outputs aren't known
_USER_HEADERS = ("x-forwarded-email", "x-forwarded-user")
"""Headers in which a proxy that signs users in, such as that of Databricks Apps, names the user."""

_UNKNOWN_USER = "page"


class Feedback(pydantic.BaseModel):
    """The body of a request.

    Attributes:
        trace_id: the trace of the answer.
        correct: whether the answer is correct; ``None`` for no judgement.
        comment: why.
        expected: the correct values, by output field.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    trace_id: Annotated[str, pydantic.Field(min_length=1, max_length=300)]
    correct: bool | None = None
    comment: Annotated[str, pydantic.Field(max_length=10_000)] = ""
    expected: dict[str, Any] = {}


class FeedbackEndpoint:
    """Records feedback on the traces that servers of the agent made, sent from their own page.

    Args:
        served: the agent.
    """

    def __init__(self, served: ServedAgent):
        self._served = served

    @property
    def route(self) -> Route:
        """The route of the endpoint."""
        return Route("/agent/feedback", self.__call__, methods=["POST"])

    async def __call__(self, request: Request) -> JSONResponse:
        """Record the feedback in the body."""
        try:
            _check_same_origin(request.headers)
            feedback = _read(await request.body())
            user = next((request.headers[name] for name in _USER_HEADERS if request.headers.get(name)), _UNKNOWN_USER)
            count = await run_in_threadpool(self._record, feedback, user)
        except AgentError as error:
            return error_response(error)
        return JSONResponse({"trace_id": feedback.trace_id, "assessments": count})

    def _record(self, feedback: Feedback, user: str) -> int:
        """Write the assessments; return how many."""
        expected = {name: self._validated(name, value) for name, value in feedback.expected.items()}
        comment = feedback.comment.strip()
        if feedback.correct is None and not comment and not expected:
            raise invalid_request("The feedback is empty; send correct, comment or expected.")
        self._check_trace(feedback.trace_id)
        source = AssessmentSource(source_type=AssessmentSourceType.HUMAN, source_id=user)
        target: dict[str, Any] = {"trace_id": feedback.trace_id, "source": source}
        try:
            for name, value in expected.items():
                mlflow.log_expectation(name=name, value=value, **target)
            if feedback.correct is not None:
                mlflow.log_feedback(name=CORRECT, value=feedback.correct, rationale=comment or None, **target)
            elif comment:
                mlflow.log_feedback(name=COMMENT, value=comment, **target)
        except MlflowException as error:
            raise _unavailable("The tracking server didn't record the feedback; try again later.") from error
        return len(expected) + int(feedback.correct is not None or bool(comment))

    def _check_trace(self, trace_id: str) -> None:
        trace = mlflow.get_trace(trace_id, silent=True, flush=True)
        if trace is None:
            _check_tracking_server()  # MLflow returns None for one that doesn't answer, too
        if trace is None or trace.info.tags.get(SERVED_BY) != self._served.name:
            raise AgentError(
                f"This server made no trace {trace_id!r:.80}, or it isn't recorded yet; send the trace_id of one of "
                "its responses.",
                "not_found",
                404,
                param="trace_id",
            )

    def _validated(self, name: str, value: Any) -> Any:
        """Return a corrected output as JSON, if the signature has it and allows the value."""
        agent, param = self._served.agent, f"expected.{name}"
        if not isinstance(agent, ResponsesAdapter):
            if name != _EXPECTED_RESPONSE or not isinstance(value, str):
                raise invalid_request(f"This agent's outputs aren't known; send {_EXPECTED_RESPONSE}, a text.", param)
            return value
        fields = agent.program.signature.output_fields
        if name not in fields:
            raise invalid_request(f"The agent has no output {name!r:.80}; known: {', '.join(fields)}.", param)
        try:
            return plain(pydantic.TypeAdapter(field_type(fields[name])).validate_python(value))
        except pydantic.ValidationError as error:
            problem = problems_of(error)[0]
            raise invalid_request(f"{name}: {problem['msg']}.", param) from error


def _read(body: bytes) -> Feedback:
    try:
        return Feedback.model_validate_json(body)
    except pydantic.ValidationError as error:
        problem = problems_of(error)[0]
        param = ".".join(map(str, problem["loc"]))
        raise invalid_request(f"{param or 'The body'}: {problem['msg']}.", param or None) from error


def _check_same_origin(headers: Headers) -> None:
    """Refuse a request of another site's page; ``serve.cors`` doesn't allow it either."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_own = site == "same-origin" if site is not None else origin is None or is_own_origin(origin, headers)
    if not is_own:
        raise AgentError("Feedback is accepted from the server's own page only.", "origin_not_allowed", 403)


def _check_tracking_server() -> None:
    try:
        mlflow.search_experiments(max_results=1)
    except MlflowException as error:
        raise _unavailable("The tracking server doesn't answer; try again later.") from error


def _unavailable(message: str) -> AgentError:
    return AgentError(message, "server_error", 503, retryable=True)
