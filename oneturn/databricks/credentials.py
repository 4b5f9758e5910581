"""Who asks the workspace: the agent itself, or the user who asks the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from oneturn.errors import ConfigError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


def workspace_client(credentials: Literal["agent", "user"] = "agent") -> WorkspaceClient:
    """A client of the workspace."""
    try:
        from databricks.sdk import WorkspaceClient
    except ModuleNotFoundError:
        raise ConfigError('Databricks needs the extra: pip install "oneturn[databricks]"') from None
    return WorkspaceClient()
