"""The optional response store: responses by id, and the answers of repeated requests, for all replicas."""

from oneturn.serving.store.conversation import StoredConversation
from oneturn.serving.store.database import StoreDatabase, build_store
from oneturn.serving.store.endpoints import StoredResponses
from oneturn.serving.store.idempotency import IdempotentRequest, RecordedAnswer
from oneturn.serving.store.request import RequestStorage

__all__ = [
    "IdempotentRequest",
    "RecordedAnswer",
    "RequestStorage",
    "StoreDatabase",
    "StoredConversation",
    "StoredResponses",
    "build_store",
]
