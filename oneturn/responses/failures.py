"""A failure as what a client may read: a code and a message without traceback, path or secret."""

from __future__ import annotations

import mlflow
from dspy.utils.exceptions import LMError

from oneturn.errors import RequestError, RunError


def told(error: Exception) -> tuple[str, str]:
    """Code and message of the terminal event. The whole error goes into the trace, if there is one.

    Only the messages of failed runs and refused requests are passed on: they are written for whoever asks. Others are
    written for whoever runs the agent, and may name its files.
    """
    span = mlflow.get_current_active_span()
    if span is not None:
        span.record_exception(error)
    if isinstance(error, RunError):
        return error.code, str(error)
    if isinstance(error, RequestError):
        return "invalid_request", str(error)
    if isinstance(error, LMError):
        return "lm_error", f"The language model could not be asked ({type(error).__name__}). Try again later."
    return "server_error", f"The agent failed ({type(error).__name__}); its trace tells more."
