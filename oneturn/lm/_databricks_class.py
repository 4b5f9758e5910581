"""``EndpointLM``: Databricks' own LM class, without its call at construction, and with an engine."""

from __future__ import annotations

from typing import Any

import databricks_dspy
import dspy
from databricks.sdk import WorkspaceClient

from oneturn.core.databricks_auth import workspace_client


class EndpointLM(databricks_dspy.DatabricksLM):
    """A serving endpoint as a ``dspy.LM``.

    ``databricks_dspy.DatabricksLM`` (0.1.0) asks who the user is when it is made, and puts credentials into ``forward``
    alone, among what DSPy's cache is keyed by. Here the engine has them, for each of DSPy's ways to ask.
    """

    def __init__(self, model: str, **options: Any):
        dspy.LM.__init__(self, model, **options)
        self.create_pt_endpoint = False

    forward = dspy.LM.forward
    aforward = dspy.LM.aforward

    @property
    def workspace_client(self) -> WorkspaceClient:
        """A client with the LM's credentials."""
        return workspace_client(self._engine_spec.credentials)
