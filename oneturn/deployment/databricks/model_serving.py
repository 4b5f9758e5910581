"""Plan and run a deployment to Databricks Model Serving."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.config.tracking import use_store, use_tracking
from oneturn.core.databricks_auth import as_deploy_error, workspace_client
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
from oneturn.deployment.preflight import refuse_problems, refuse_undeployable, refuse_unsigned_approvals
from oneturn.deployment.registry import champion_of, version_of
from oneturn.errors import DeployError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


SET_BY_DATABRICKS = {
    "ENABLE_LANGCHAIN_STREAMING",
    "ENABLE_MLFLOW_TRACING",
    "MLFLOW_EXPERIMENT_ID",
    "RETURN_REQUEST_ID_IN_RESPONSE",
}
"""Environment variables set by ``databricks.agents``."""


@dataclass(frozen=True)
class ServingPlan:
    """What a deployment will do, given the current state of the endpoint.

    Attributes:
        model: the registered model.
        version: the version that will receive all requests.
        chosen: why this version was selected.
        endpoint: the endpoint's name.
        replaces: the version that receives the requests now; ``None`` if there is none.
        kept: whether the endpoint already has this version; then only its settings change, without a build.
        lost: names of environment variables set on the endpoint but not in the configuration.
        config: the agent's configuration.
    """

    model: str
    version: str
    chosen: str
    endpoint: str
    replaces: str | None
    kept: bool
    lost: tuple[str, ...]
    config: AgentConfig

    def lines(self) -> list[str]:
        """The plan as text, for confirmation."""
        settings = self.config.deploy
        previous = f"instead of version {self.replaces}" if self.replaces else "which is created if it doesn't exist"
        if self.replaces == self.version:
            previous = "as now, with the settings below"
        size = f"{settings.workload_size}{', scales to zero when idle' if settings.scale_to_zero else ''}"
        names = ", ".join(sorted(settings.environment)) or "none configured"
        lines = [
            f"Version {self.version} of {self.model} ({self.chosen}) gets the requests of {self.endpoint}, {previous}.",
            f"Size: {size}. Environment variables: {names}.",
        ]
        if self.lost:
            names = ", ".join(self.lost)
            lines.append(
                f"Set on the endpoint, but not in deploy.environment: {names}. The new version won't have them."
            )
        return lines


@as_deploy_error("The agent can't be deployed")
def plan_serving(agent: Agent, version: str | None = None, *, check: bool = True) -> ServingPlan:
    """Plan ``deploy_serving`` without changing anything.

    Args:
        agent: its configuration names the registered model and the serving settings.
        version: a version number or an alias; ``None`` for the version with the configured alias, else the latest.
        check: first check all workspace resources that the configuration names.

    Raises:
        DeployError: the configuration can't be deployed.
        ProgramError: there is no such version.
    """
    (refuse_problems if check else refuse_undeployable)(agent.config)
    refuse_unsigned_approvals(agent)
    use_store(agent.config.mlflow, agent.root)
    model = agent.config.mlflow.model_name
    number, chosen = _select_version(model, version, agent.config.gate.alias)
    name = agent.config.deploy.endpoint or endpoint_name(model)
    endpoint = endpoint_of(workspace_client(), name)
    now, kept = serving_now(endpoint, model), number in served_versions(endpoint, model)
    configured = set(agent.config.deploy.environment) | SET_BY_DATABRICKS
    lost = tuple(sorted(set((now.environment_vars if now else None) or {}) - configured))
    return ServingPlan(model, number, chosen, name, now.entity_version if now else None, kept, lost, agent.config)


def _select_version(model: str, version: str | None, alias: str) -> tuple[str, str]:
    client = MlflowClient()
    if version is None:
        if champion := champion_of(client, model, alias):
            return str(champion.version), alias
        return str(version_of(client, model, None).version), f"the latest; no version has the alias {alias}"
    if version.isdigit():
        return str(version_of(client, model, version).version), "as requested"
    if (aliased := champion_of(client, model, version)) is None:
        raise DeployError(f"No version of {model!r} has the alias {version!r}; give a version's number.")
    return str(aliased.version), version


REPLACED = "oneturn_replaced_on_endpoint"
"""The tag of a deployed version that names the version it replaced on the endpoint."""


@dataclass(frozen=True)
class Deployed:
    """A deployed agent.

    Attributes:
        plan: the executed plan.
        url: the URL for requests.
        page: the endpoint's page in the workspace.
        review_app: the URL of the review app, where people try the agent and give feedback.
    """

    plan: ServingPlan
    url: str
    page: str
    review_app: str


@as_deploy_error("The agent can't be deployed")
def deploy_serving(plan: ServingPlan, on_progress: ProgressCallback = print) -> Deployed:
    """Serve the version on the endpoint and wait until it is ready.

    The environment variables are exactly those of the configuration: Databricks doesn't carry over earlier ones.

    Raises:
        DeployError: the version can't be deployed or doesn't start; the message has the cause.
    """
    use_tracking(plan.config.mlflow)
    client = workspace_client()
    if plan.kept:
        on_progress("The endpoint already has this version; no build is needed.")
        page, review = _update_deployment(plan)
    else:
        on_progress("Databricks builds the version; the first build takes about 15 minutes.")
        page, review = _create_deployment(plan)
    wait_until_ready(client, plan.endpoint, plan.version, plan.config.deploy.minutes, on_progress)
    registry = MlflowClient()
    timestamp = datetime.now(timezone.utc).isoformat(timespec="seconds")
    tags = {"oneturn_deployed_at": timestamp}
    if plan.replaces != plan.version:
        tags[REPLACED] = plan.replaces or "none"
    for tag, value in tags.items():
        registry.set_model_version_tag(plan.model, plan.version, tag, value)
    if plan.config.deploy.keep is not None:
        _remove_old_versions(client, plan, plan.config.deploy.keep, on_progress)
    return Deployed(plan, f"{client.config.host}/serving-endpoints/{plan.endpoint}", page, review)


def _create_deployment(plan: ServingPlan) -> tuple[str, str]:
    """Create the deployment; return the URLs of the endpoint's page and the review app."""
    from databricks.agents import deploy
    from databricks.sdk.errors.base import DatabricksError

    settings = plan.config.deploy
    with _quiet_output():
        try:
            deployment = deploy(
                plan.model,
                int(plan.version),
                scale_to_zero=settings.scale_to_zero,
                environment_vars=dict(settings.environment),
                tags=dict(settings.tags) or None,
                workload_size=settings.workload_size,
                endpoint_name=plan.endpoint,
            )
        except (DatabricksError, MlflowException, ValueError) as error:
            raise DeployError(f"Databricks can't deploy version {plan.version} of {plan.model}: {error}") from error
    return str(deployment.endpoint_url), str(deployment.review_app_url)


def _update_deployment(plan: ServingPlan) -> tuple[str, str]:
    """Give a version on the endpoint new settings and all requests; return the same URLs as ``_create_deployment``."""
    from databricks.agents import get_deployments

    client, settings = workspace_client(), plan.config.deploy
    endpoint = client.serving_endpoints.get(plan.endpoint)
    if endpoint.config is None:
        raise DeployError(f"{plan.endpoint} has no version that is ready; wait, or deploy again.")
    entity = entity_of(endpoint.config, plan.model, plan.version)
    reserved = {name: value for name, value in (entity.environment_vars or {}).items() if name in SET_BY_DATABRICKS}
    entity.environment_vars = {**settings.environment, **reserved}
    entity.workload_size, entity.scale_to_zero_enabled = settings.workload_size, settings.scale_to_zero
    give_requests_to(client, plan.endpoint, entity)
    with _quiet_output():
        deployments = get_deployments(plan.model, int(plan.version))
    page = f"{client.config.host}/ml/endpoints/{plan.endpoint}/"
    return page, str(deployments[0].review_app_url) if deployments else page


def _remove_old_versions(client: WorkspaceClient, plan: ServingPlan, keep: int, on_progress: ProgressCallback) -> None:
    """Remove versions from the endpoint, except the newest ones and the rollback target."""
    from databricks.agents import delete_deployment

    newest = sorted(served_versions(client.serving_endpoints.get(plan.endpoint), plan.model), key=int, reverse=True)
    obsolete = [version for version in newest[keep:] if version not in (plan.version, plan.replaces)]
    if obsolete and plan.version != newest[0]:  # databricks.agents would route all requests to the newest one
        on_progress(
            f"Version {plan.version} isn't the newest on the endpoint; no version is removed ({', '.join(newest)})."
        )
        return
    for version in obsolete:
        on_progress(f"Removing version {version} from the endpoint.")
        with _quiet_output():
            delete_deployment(plan.model, int(version))
        wait_until_ready(client, plan.endpoint, plan.version, plan.config.deploy.minutes, on_progress)


@contextlib.contextmanager
def _quiet_output() -> Iterator[None]:
    """Suppress the output of ``databricks.agents``, because the caller reports its results."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
