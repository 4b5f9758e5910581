"""``EndpointLM``: Databricks' own LM class, with an engine and without a request at construction."""

from __future__ import annotations

from typing import Any

import databricks_dspy
import dspy
from databricks.sdk import WorkspaceClient

from oneturn.core.databricks_auth import workspace_client


class EndpointLM(databricks_dspy.DatabricksLM):
    """A serving endpoint as a ``dspy.LM``.

    ``databricks_dspy.DatabricksLM`` (0.1.0) requests the current user at construction. It passes credentials in
    ``forward`` only, where they become part of DSPy's cache key. Here the engine holds the credentials, for sync, async
    and streaming calls alike.
    """

    def __init__(self, model: str, **options: Any):
        dspy.LM.__init__(self, model, **options)
        self.create_pt_endpoint = False

    forward = dspy.LM.forward
    aforward = dspy.LM.aforward

    @property
    def workspace_client(self) -> WorkspaceClient:
        """A workspace client with the LM's credentials."""
        return workspace_client(self.engine.credentials)
