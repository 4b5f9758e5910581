"""Go back to the deployment of a Databricks App that ran before; its files are still in the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from oneturn.agent import Agent
from oneturn.databricks.app import started
from oneturn.databricks.app_plan import app_name
from oneturn.databricks.before import refuse_undeployable
from oneturn.databricks.credentials import workspace_client
from oneturn.databricks.failures import told_in_a_line
from oneturn.errors import DeployError


@dataclass(frozen=True)
class AppRollbackPlan:
    """Which files an app goes back to.

    Attributes:
        name: the app's.
        current: the workspace folder that it runs from now.
        target: the one that it ran from before.
        minutes: how long to wait.
    """

    name: str
    current: str
    target: str
    minutes: float

    def lines(self) -> list[str]:
        """What a person reads before it is done."""
        return [f"The app {self.name} goes back from {self.current} to {self.target}."]


@told_in_a_line("The app can't go back")
def plan_app_rollback(agent: Agent) -> AppRollbackPlan:
    """What ``roll_back_app`` would do; nothing is changed.

    Raises:
        DeployError: there is no such app, or it ran from nowhere else before.
    """
    from databricks.sdk.errors import NotFound
    from databricks.sdk.service.apps import AppDeploymentState

    refuse_undeployable(agent.config)
    client, name = workspace_client(), app_name(agent)
    try:
        kept = list(client.apps.list_deployments(name))
    except NotFound:
        raise DeployError(f"There is no app {name}. Deploy one with: oneturn deploy app") from None
    ran = [found for found in kept if found.status and found.status.state == AppDeploymentState.SUCCEEDED]
    sources = [found.source_code_path for found in sorted(ran, key=lambda found: found.create_time or "", reverse=True)]
    current = sources[0] if sources else None
    before = next((source for source in sources if source and source < (current or "")), None)
    if current is None or before is None:
        raise DeployError(f"The app {name} ran from nothing earlier: there is nothing to go back to.")
    return AppRollbackPlan(name, current, before, agent.config.deploy.minutes)


@told_in_a_line("The app can't go back")
def roll_back_app(plan: AppRollbackPlan) -> None:
    """Start the app from the files that it ran from before.

    Raises:
        DeployError: it doesn't start; the message tells what Databricks says.
    """
    started(workspace_client(), plan.name, plan.target, timedelta(minutes=plan.minutes))
