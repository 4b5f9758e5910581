"""What a deployment of a Databricks App would do, from what is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import mlflow

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.databricks.app_files import app_files
from oneturn.databricks.app_resources import app_resources, told
from oneturn.databricks.before import refuse_problems, refuse_undeployable
from oneturn.databricks.credentials import workspace_client
from oneturn.databricks.failures import told_in_a_line
from oneturn.databricks.resources import scopes_of
from oneturn.tracking import use_store

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.apps import App, AppResource


@dataclass(frozen=True)
class AppPlan:
    """What a deployment of an app will do.

    Attributes:
        name: the app's.
        exists: whether there is such an app.
        source: the workspace folder that its files are put into, a new one each time.
        files: by their path in the app.
        resources: what its service principal may reach.
        scopes: what a user's token must allow, for what the agent does on behalf of whoever asks.
        config: the agent's configuration.
    """

    name: str
    exists: bool
    source: str
    files: dict[str, bytes]
    resources: list[AppResource]
    scopes: list[str]
    config: AgentConfig

    def lines(self) -> list[str]:
        """What a person reads before it is done."""
        size = sum(len(content) for content in self.files.values())
        return [
            f"The app {self.name} {'gets a new deployment' if self.exists else 'is made'}.",
            f"{len(self.files)} files ({size / 1000:.0f} kB) go to {self.source}.",
            *(f"It may reach: {line}" for line in told(self.resources)),
            *(f"On behalf of a user: {scope}" for scope in self.scopes),
        ]


@told_in_a_line("The app can't be deployed")
def plan_app(agent: Agent, *, check: bool = True) -> AppPlan:
    """What ``deploy_app`` would do; nothing is changed.

    Args:
        agent: what the app serves.
        check: look first at all that the configuration names in the workspace.

    Raises:
        DeployError: the configuration can't be deployed.
        ProgramError: a folder that the agent declares isn't there.
    """
    (refuse_problems if check else refuse_undeployable)(agent.config)
    use_store(agent.config.mlflow)
    client, name = workspace_client(), app_name(agent)
    return AppPlan(
        name,
        _app(client, name) is not None,
        _source(client, agent.config, name),
        app_files(agent),
        app_resources(agent.config, experiment_id(agent.config)),
        scopes_of(agent.config),
        agent.config,
    )


def app_name(agent: Agent) -> str:
    """The configured name, or the agent's own in small letters and hyphens."""
    return agent.config.deploy.app.name or re.sub(r"[^a-z0-9]+", "-", agent.name.lower()).strip("-")


def experiment_id(config: AgentConfig) -> str | None:
    """Where traces go; ``None`` if it isn't made yet."""
    found = mlflow.get_experiment_by_name(config.mlflow.experiment)
    return None if found is None else str(found.experiment_id)


def _app(client: WorkspaceClient, name: str) -> App | None:
    from databricks.sdk.errors import NotFound

    try:
        return client.apps.get(name)
    except NotFound:
        return None


def _source(client: WorkspaceClient, config: AgentConfig, name: str) -> str:
    """A folder of its own for each deployment, so that an earlier one can be started again."""
    kept = config.deploy.app.source_path or f"/Workspace/Users/{client.current_user.me().user_name}/apps/{name}"
    return f"{kept.rstrip('/')}/{datetime.now(timezone.utc):%Y-%m-%dT%H-%M-%S}"
