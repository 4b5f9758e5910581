"""Who asks the workspace: the agent itself, or the user who asks the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from oneturn.errors import ConfigError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


def workspace_client(credentials: Literal["agent", "user"] = "agent") -> WorkspaceClient:
    """A client of the workspace.

    Args:
        credentials: ``"agent"``, those that the Databricks SDK finds in the environment; or ``"user"``, those of
            whoever asks, which Model Serving hands to a run: make a client for each call, and keep none.

    Raises:
        ConfigError: the SDK isn't installed; or there is no user here, whose place the agent's own credentials would
            take silently.
    """
    try:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.credentials_provider import ModelServingAuthProvider, ModelServingUserCredentials
    except ModuleNotFoundError:
        raise ConfigError('Databricks needs the extra: pip install "oneturn[databricks]"') from None
    if credentials == "agent":
        return WorkspaceClient()
    if not ModelServingAuthProvider.should_fetch_model_serving_environment_oauth():
        raise ConfigError(
            "`credentials: user` needs a user who asks: it works in Databricks Model Serving, where the platform hands "
            "over whose request it is. Elsewhere, set `credentials: agent`."
        )
    return WorkspaceClient(credentials_strategy=ModelServingUserCredentials())  # type: ignore[no-untyped-call]
