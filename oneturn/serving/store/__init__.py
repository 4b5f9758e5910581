"""The optional response store: responses by id, and the answers of repeated requests, for all replicas.

SQLAlchemy is imported only if a store is configured.
"""

from oneturn.serving.store.answer import RecordedAnswer
from oneturn.serving.store.endpoints import StoredResponses

__all__ = ["RecordedAnswer", "StoredResponses"]
