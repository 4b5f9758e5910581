"""Roll back to an earlier version on an endpoint, or to earlier files of an app."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from oneturn.agent import Agent
from oneturn.config.tracking import use_store
from oneturn.core.databricks_auth import as_deploy_error, workspace_client
from oneturn.deployment.databricks.apps import app_name, start_app
from oneturn.deployment.databricks.endpoint import (
    ProgressCallback,
    endpoint_name,
    endpoint_of,
    entity_of,
    give_requests_to,
    served_versions,
    serving_now,
    wait_until_ready,
)
from oneturn.deployment.databricks.model_serving import REPLACED
from oneturn.deployment.preflight import refuse_undeployable
from oneturn.deployment.promotion import check_reason
from oneturn.deployment.registry import champion_of, version_of
from oneturn.errors import DeployError

if TYPE_CHECKING:
    from databricks.sdk.service.serving import EndpointCoreConfigOutput, ServingEndpointDetailed


"""Characters of a tag's value, which Unity Catalog limits."""


@dataclass(frozen=True)
class RollbackPlan:
    """Which version is replaced by which.

    Attributes:
        model: the registered model.
        endpoint: the endpoint's name.
        current: the version that receives the requests now.
        target: the version that will receive them.
        alias: the alias to move to ``target``; ``None`` if it doesn't point at ``current``.
        minutes: the time limit.
    """

    model: str
    endpoint: str
    current: str
    target: str
    alias: str | None
    minutes: float

    def lines(self) -> list[str]:
        """The plan as text, for confirmation."""
        moved = f", and the alias {self.alias} with them" if self.alias else ""
        return [f"The requests of {self.endpoint} go from version {self.current} to version {self.target}{moved}."]


@as_deploy_error("The endpoint can't be rolled back")
def plan_rollback(agent: Agent, version: str | None = None) -> RollbackPlan:
    """Plan ``roll_back`` without changing anything.

    Args:
        agent: its configuration names the registered model, endpoint and alias.
        version: the target version; ``None`` for the version that the current one replaced.

    Raises:
        DeployError: nothing is served, or there is no version to roll back to.
        ProgramError: there is no such version.
    """
    refuse_undeployable(agent.config)
    use_store(agent.config.mlflow, agent.root)
    model, alias = agent.config.mlflow.model_name, agent.config.gate.alias
    name = agent.config.deploy.endpoint or endpoint_name(model)
    endpoint = endpoint_of(workspace_client(), name)
    serving = serving_now(endpoint, model)
    if endpoint is None or serving is None or serving.entity_version is None:
        raise DeployError(f"{name} serves no version of {model}; deploy one first.")
    registry = MlflowClient()
    current = serving.entity_version
    target = str(version_of(registry, model, version or _previous_version(registry, endpoint, model, current)).version)
    if target == current:
        raise DeployError(f"{name} already serves version {current}; name another version.")
    if target not in served_versions(endpoint, model):
        raise DeployError(f"Version {target} is no longer on {name}; deploy it: oneturn deploy serving {target}")
    champion = champion_of(registry, model, alias)
    moves = champion is not None and str(champion.version) == current
    return RollbackPlan(model, name, current, target, alias if moves else None, agent.config.deploy.minutes)


@as_deploy_error("The endpoint can't be rolled back")
def roll_back(plan: RollbackPlan, reason: str, on_progress: ProgressCallback = print) -> None:
    """Route the requests to the target version and move the alias. No build is needed.

    Both versions stay on the endpoint; the replaced one is tagged with the reason.

    Raises:
        DeployError: the endpoint can't be updated now, or doesn't become ready.
        ProgramError: the reason is too long for a tag, or contains a secret; nothing is changed.
    """
    check_reason(reason)
    client, registry = workspace_client(), MlflowClient()
    config = _config(client.serving_endpoints.get(plan.endpoint))
    give_requests_to(client, plan.endpoint, entity_of(config, plan.model, plan.target))
    wait_until_ready(client, plan.endpoint, plan.target, plan.minutes, on_progress)
    if plan.alias is not None:
        registry.set_registered_model_alias(plan.model, plan.alias, plan.target)
    timestamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for tag, value in {"oneturn_rolled_back_at": timestamp, "oneturn_rolled_back_because": reason}.items():
        registry.set_model_version_tag(plan.model, plan.current, tag, value)


def _previous_version(registry: MlflowClient, endpoint: ServingEndpointDetailed, model: str, current: str) -> str:
    """The version that ``current`` replaced on the endpoint, according to its tag; else the next lower one."""
    replaced = registry.get_model_version(model, current).tags.get(REPLACED)
    versions = served_versions(endpoint, model)
    if replaced in versions:
        return str(replaced)
    older = [version for version in versions if int(version) < int(current)]
    if not older:
        raise DeployError(f"{endpoint.name} has no version older than {current} to roll back to.")
    return max(older, key=int)


def _config(endpoint: ServingEndpointDetailed) -> EndpointCoreConfigOutput:
    if endpoint.config is None:
        raise DeployError(f"{endpoint.name} has no version that is ready; wait, or deploy again.")
    return endpoint.config


@dataclass(frozen=True)
class AppRollbackPlan:
    """Which files an app is rolled back to.

    Attributes:
        name: the app's name.
        current: the workspace folder of the current deployment.
        target: the workspace folder of the previous deployment.
        minutes: the time limit.
    """

    name: str
    current: str
    target: str
    minutes: float

    def lines(self) -> list[str]:
        """The plan as text, for confirmation."""
        kept = (
            "It keeps the resources of the current deployment: if the earlier files need others, such as another "
            "endpoint or secret, deploy that version of the agent again instead."
        )
        return [f"The app {self.name} is rolled back from {self.current} to {self.target}.", kept]


@as_deploy_error("The app can't be rolled back")
def plan_app_rollback(agent: Agent) -> AppRollbackPlan:
    """Plan ``roll_back_app`` without changing anything.

    Raises:
        DeployError: the app doesn't exist, or it has no earlier deployment.
    """
    from databricks.sdk.errors import NotFound
    from databricks.sdk.service.apps import AppDeploymentState

    refuse_undeployable(agent.config)
    client, name = workspace_client(), app_name(agent)
    try:
        deployments = list(client.apps.list_deployments(name))
    except NotFound:
        raise DeployError(f"The app {name} doesn't exist. Deploy it with: oneturn deploy app") from None
    ran = [each for each in deployments if each.status and each.status.state == AppDeploymentState.SUCCEEDED]
    sources = [each.source_code_path for each in sorted(ran, key=lambda each: each.create_time or "", reverse=True)]
    current = sources[0] if sources else None
    previous = next((source for source in sources if source and source < (current or "")), None)
    if current is None or previous is None:
        raise DeployError(f"The app {name} has no earlier deployment to roll back to.")
    return AppRollbackPlan(name, current, previous, agent.config.deploy.minutes)


@as_deploy_error("The app can't be rolled back")
def roll_back_app(plan: AppRollbackPlan) -> None:
    """Start the app from the files of its previous deployment.

    Raises:
        DeployError: it doesn't start; the message has Databricks' error.
    """
    start_app(workspace_client(), plan.name, plan.target, timedelta(minutes=plan.minutes))
