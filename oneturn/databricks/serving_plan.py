"""What a deployment to Model Serving would do, from what is there."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient

from oneturn.agent import Agent
from oneturn.compiling.versions import champion_of, version_of
from oneturn.config import AgentConfig
from oneturn.databricks.before import refuse_problems, refuse_undeployable
from oneturn.databricks.credentials import workspace_client
from oneturn.databricks.endpoint import endpoint_name, endpoint_of, serving_now
from oneturn.databricks.failures import told_in_a_line
from oneturn.databricks.traffic import served
from oneturn.errors import DeployError
from oneturn.tracking import use_store

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


@told_in_a_line("The agent can't be deployed")
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
