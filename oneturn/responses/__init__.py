"""The Responses protocol: the adapter that MLflow serves, the client, and the client's reply."""

from oneturn.responses.adapter import ResponsesAdapter
from oneturn.responses.client import query
from oneturn.responses.reply import Reply

__all__ = [
    "Reply",
    "ResponsesAdapter",
    "query",
]
