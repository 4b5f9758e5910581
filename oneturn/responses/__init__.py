"""The OpenAI Responses protocol: a program served as an MLflow ``ResponsesAgent``."""

from oneturn.responses.adapter import ResponsesAdapter

__all__ = ["ResponsesAdapter"]
