"""Go back to the version before: its requests on the endpoint, and the alias."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from oneturn.agent import Agent
from oneturn.config.tracking import use_store
from oneturn.core.databricks_auth import as_deploy_error, workspace_client
from oneturn.deployment.databricks.apps import app_name, started
from oneturn.deployment.databricks.endpoint import (
    ProgressCallback,
    endpoint_name,
    endpoint_of,
    entity_of,
    give_requests_to,
    served,
    serving_now,
    wait_until_ready,
)
from oneturn.deployment.databricks.model_serving import REPLACED
from oneturn.deployment.doctor.runner import refuse_undeployable
from oneturn.deployment.registry import champion_of, version_of
from oneturn.errors import DeployError

if TYPE_CHECKING:
    from databricks.sdk.service.serving import EndpointCoreConfigOutput, ServingEndpointDetailed


_LONGEST = 250
"""Characters of a tag's value, which Unity Catalog limits."""


@dataclass(frozen=True)
class RollbackPlan:
    """Which version gives way to which.

    Attributes:
        model: the registered model.
        endpoint: the endpoint's name.
        current: the version that has the requests now.
        target: the one that gets them.
        alias: the alias that moves with them; ``None`` if it points elsewhere than at ``current``.
        minutes: how long to wait.
    """

    model: str
    endpoint: str
    current: str
    target: str
    alias: str | None
    minutes: float

    def lines(self) -> list[str]:
        """What a person reads before it is done."""
        moved = f", and the alias {self.alias} with them" if self.alias else ""
        return [f"The requests of {self.endpoint} go from version {self.current} to version {self.target}{moved}."]


@as_deploy_error("The endpoint can't go back")
def plan_rollback(agent: Agent, version: str | None = None) -> RollbackPlan:
    """What ``roll_back`` would do; nothing is changed.

    Args:
        agent: says which registered model, endpoint and alias.
        version: where to go; ``None`` for the version that the current one has replaced.

    Raises:
        DeployError: nothing is served, or there is no version to go back to.
        ProgramError: there is no such version.
    """
    refuse_undeployable(agent.config)
    use_store(agent.config.mlflow)
    model, alias = agent.config.mlflow.model_name, agent.config.gate.alias
    name = agent.config.deploy.endpoint or endpoint_name(model)
    endpoint = endpoint_of(workspace_client(), name)
    now = serving_now(endpoint, model)
    if endpoint is None or now is None or now.entity_version is None:
        raise DeployError(f"{name} serves no version of {model}: there is nothing to go back from.")
    registry = MlflowClient()
    current = now.entity_version
    target = str(version_of(registry, model, version or _before(registry, endpoint, model, current)).version)
    if target == current:
        raise DeployError(f"{name} serves version {current} already.")
    if target not in served(endpoint, model):
        raise DeployError(f"{name} has no version {target} any more; deploy it: oneturn deploy serving {target}")
    named = champion_of(registry, model, alias)
    moves = named is not None and str(named.version) == current
    return RollbackPlan(model, name, current, target, alias if moves else None, agent.config.deploy.minutes)


@as_deploy_error("The endpoint can't go back")
def roll_back(plan: RollbackPlan, reason: str, say: ProgressCallback = print) -> None:
    """Give the requests, and the alias, to the version before. It is there already: nothing is built.

    Both versions stay; the one that gives way is tagged with the reason.

    Raises:
        DeployError: the endpoint can't be changed now, or doesn't become ready.
    """
    client, registry = workspace_client(), MlflowClient()
    config = _config(client.serving_endpoints.get(plan.endpoint))
    give_requests_to(client, plan.endpoint, entity_of(config, plan.model, plan.target))
    wait_until_ready(client, plan.endpoint, plan.target, plan.minutes, say)
    if plan.alias is not None:
        registry.set_registered_model_alias(plan.model, plan.alias, plan.target)
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for tag, value in {"oneturn_rolled_back_at": when, "oneturn_rolled_back_because": reason}.items():
        registry.set_model_version_tag(plan.model, plan.current, tag, value[:_LONGEST])


def _before(registry: MlflowClient, endpoint: ServingEndpointDetailed, model: str, current: str) -> str:
    """The version that ``current`` has replaced on the endpoint; the highest one below it, if nothing says so."""
    replaced = registry.get_model_version(model, current).tags.get(REPLACED)
    kept = served(endpoint, model)
    if replaced in kept:
        return str(replaced)
    older = [version for version in kept if int(version) < int(current)]
    if not older:
        raise DeployError(f"{endpoint.name} serves no version older than {current}: there is none to go back to.")
    return max(older, key=int)


def _config(endpoint: ServingEndpointDetailed) -> EndpointCoreConfigOutput:
    if endpoint.config is None:
        raise DeployError(f"{endpoint.name} has no version that is ready.")
    return endpoint.config


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


@as_deploy_error("The app can't go back")
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


@as_deploy_error("The app can't go back")
def roll_back_app(plan: AppRollbackPlan) -> None:
    """Start the app from the files that it ran from before.

    Raises:
        DeployError: it doesn't start; the message tells what Databricks says.
    """
    started(workspace_client(), plan.name, plan.target, timedelta(minutes=plan.minutes))
