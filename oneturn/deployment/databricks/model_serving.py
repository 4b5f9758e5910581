"""What a deployment to Model Serving would do, from what is there."""

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
    served,
    serving_now,
    wait_until_ready,
)
from oneturn.deployment.doctor.runner import refuse_problems, refuse_undeployable
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
"""Environment variables that ``databricks.agents`` sets by itself."""


@dataclass(frozen=True)
class ServingPlan:
    """What a deployment will do, from what is there.

    Attributes:
        model: the registered model.
        version: the version that will get all requests.
        chosen: why this version.
        endpoint: the endpoint's name.
        replaces: the version that gets the requests now; ``None`` if there is none.
        kept: whether the endpoint has this version already: then it is only set anew, which needs no build.
        lost: names of environment variables that the endpoint has now and the configuration doesn't name.
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
        """What a person reads before it is done."""
        settings = self.config.deploy
        before = f"instead of version {self.replaces}" if self.replaces else "which is made, if it isn't there"
        if self.replaces == self.version:
            before = "as it does now, with the settings below"
        size = f"{settings.workload_size}{', sleeps when nobody asks' if settings.scale_to_zero else ''}"
        names = ", ".join(sorted(settings.environment)) or "none of yours"
        found = [
            f"Version {self.version} of {self.model} ({self.chosen}) gets the requests of {self.endpoint}, {before}.",
            f"Size: {size}. Environment variables: {names}.",
        ]
        if self.lost:
            names = ", ".join(self.lost)
            found.append(
                f"Set on the endpoint now, and not in deploy.environment: {names}. The new version lacks them."
            )
        return found


@as_deploy_error("The agent can't be deployed")
def plan_serving(agent: Agent, version: str | None = None, *, check: bool = True) -> ServingPlan:
    """What ``deploy_serving`` would do; nothing is changed.

    Args:
        agent: says which registered model, and how it is served.
        version: a version's number, or an alias; ``None`` for the version that the configured alias names, or the
            latest if it names none.
        check: look first at all that the configuration names in the workspace.

    Raises:
        DeployError: the configuration can't be deployed.
        ProgramError: there is no such version.
    """
    (refuse_problems if check else refuse_undeployable)(agent.config)
    use_store(agent.config.mlflow)
    model = agent.config.mlflow.model_name
    number, chosen = _chosen(model, version, agent.config.gate.alias)
    name = agent.config.deploy.endpoint or endpoint_name(model)
    endpoint = endpoint_of(workspace_client(), name)
    now, kept = serving_now(endpoint, model), number in served(endpoint, model)
    known = set(agent.config.deploy.environment) | SET_BY_DATABRICKS
    lost = tuple(sorted(set((now.environment_vars if now else None) or {}) - known))
    return ServingPlan(model, number, chosen, name, now.entity_version if now else None, kept, lost, agent.config)


def _chosen(model: str, version: str | None, alias: str) -> tuple[str, str]:
    client = MlflowClient()
    if version is None:
        if found := champion_of(client, model, alias):
            return str(found.version), alias
        return str(version_of(client, model, None).version), f"the latest; no version is the {alias}"
    if version.isdigit():
        return str(version_of(client, model, version).version), "as asked"
    if (named := champion_of(client, model, version)) is None:
        raise DeployError(f"No version of {model!r} has the alias {version!r}; give a version's number.")
    return str(named.version), version


REPLACED = "oneturn_replaced_on_endpoint"
"""The tag of a deployed version that says which one had its requests before."""


@dataclass(frozen=True)
class Deployed:
    """A deployed agent.

    Attributes:
        plan: what was done.
        url: where it answers.
        page: the endpoint's page in the workspace.
        review_app: where people try it and say what they think.
    """

    plan: ServingPlan
    url: str
    page: str
    review_app: str


@as_deploy_error("The agent can't be deployed")
def deploy_serving(plan: ServingPlan, say: ProgressCallback = print) -> Deployed:
    """Let the endpoint serve the version, wait until it does, and say where.

    The environment variables are those of the configuration, each time: Databricks doesn't carry earlier ones over.

    Raises:
        DeployError: it can't be deployed, or didn't start; the message tells the cause.
    """
    use_tracking(plan.config.mlflow)
    client = workspace_client()
    if plan.kept:
        say("The endpoint has this version: nothing is built.")
        page, review = _set_anew(plan)
    else:
        say("Asking Databricks to build it; the first time takes about a quarter of an hour.")
        page, review = _deployed(plan)
    wait_until_ready(client, plan.endpoint, plan.version, plan.config.deploy.minutes, say)
    registry = MlflowClient()
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    tags = {"oneturn_deployed_at": when}
    if plan.replaces != plan.version:
        tags[REPLACED] = plan.replaces or "none"
    for tag, value in tags.items():
        registry.set_model_version_tag(plan.model, plan.version, tag, value)
    if plan.config.deploy.keep is not None:
        _tidy_up(client, plan, plan.config.deploy.keep, say)
    return Deployed(plan, f"{client.config.host}/serving-endpoints/{plan.endpoint}", page, review)


def _deployed(plan: ServingPlan) -> tuple[str, str]:
    """The pages of the endpoint and of the review app."""
    from databricks.agents import deploy
    from databricks.sdk.errors.base import DatabricksError

    settings = plan.config.deploy
    with _quietly():
        try:
            made = deploy(
                plan.model,
                int(plan.version),
                scale_to_zero=settings.scale_to_zero,
                environment_vars=dict(settings.environment),
                tags=dict(settings.tags) or None,
                workload_size=settings.workload_size,
                endpoint_name=plan.endpoint,
            )
        except (DatabricksError, MlflowException, ValueError) as error:
            raise DeployError(f"Databricks doesn't deploy version {plan.version} of {plan.model}: {error}") from error
    return str(made.endpoint_url), str(made.review_app_url)


def _set_anew(plan: ServingPlan) -> tuple[str, str]:
    """Give a version that is on the endpoint its settings and all requests; the pages as of its first deployment."""
    from databricks.agents import get_deployments

    client, settings = workspace_client(), plan.config.deploy
    endpoint = client.serving_endpoints.get(plan.endpoint)
    if endpoint.config is None:
        raise DeployError(f"{plan.endpoint} has no version that is ready.")
    entity = entity_of(endpoint.config, plan.model, plan.version)
    theirs = {name: value for name, value in (entity.environment_vars or {}).items() if name in SET_BY_DATABRICKS}
    entity.environment_vars = {**settings.environment, **theirs}
    entity.workload_size, entity.scale_to_zero_enabled = settings.workload_size, settings.scale_to_zero
    give_requests_to(client, plan.endpoint, entity)
    with _quietly():
        made = get_deployments(plan.model, int(plan.version))
    page = f"{client.config.host}/ml/endpoints/{plan.endpoint}/"
    return page, str(made[0].review_app_url) if made else page


def _tidy_up(client: WorkspaceClient, plan: ServingPlan, keep: int, say: ProgressCallback) -> None:
    """Take versions off the endpoint, but the newest ones and the one that a rollback goes to."""
    from databricks.agents import delete_deployment

    newest = sorted(served(client.serving_endpoints.get(plan.endpoint), plan.model), key=int, reverse=True)
    leaving = [version for version in newest[keep:] if version not in (plan.version, plan.replaces)]
    if leaving and plan.version != newest[0]:  # databricks.agents would give the newest one all requests
        say(f"Version {plan.version} isn't the newest on the endpoint: all of them stay ({', '.join(newest)}).")
        return
    for version in leaving:
        say(f"Taking version {version} off the endpoint.")
        with _quietly():
            delete_deployment(plan.model, int(version))
        wait_until_ready(client, plan.endpoint, plan.version, plan.config.deploy.minutes, say)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what ``databricks.agents`` prints: it is told again, with what follows from it."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
