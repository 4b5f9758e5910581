"""What a deployment of a Databricks App would do, from what is there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import mlflow

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.config.tracking import use_store, use_tracking
from oneturn.core.databricks_auth import as_deploy_error, workspace_client
from oneturn.deployment.databricks.app_files import app_files, app_resources, describe_resources
from oneturn.deployment.databricks.endpoint import ProgressCallback
from oneturn.deployment.doctor.runner import refuse_problems, refuse_undeployable
from oneturn.deployment.resources import scopes_of
from oneturn.errors import DeployError

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
            *(f"It may reach: {line}" for line in describe_resources(self.resources)),
            *(f"On behalf of a user: {scope}" for scope in self.scopes),
        ]


@as_deploy_error("The app can't be deployed")
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


_UPLOADS = 8
"""Files at the same time."""


@dataclass(frozen=True)
class DeployedApp:
    """An app that answers.

    Attributes:
        plan: what was done.
        url: where it answers.
    """

    plan: AppPlan
    url: str


@as_deploy_error("The app can't be deployed")
def deploy_app(plan: AppPlan, say: ProgressCallback = print) -> DeployedApp:
    """Make or change the app, upload its files, start them, and wait until they run.

    Raises:
        DeployError: it can't be made or doesn't start; the message tells what Databricks says.
    """
    use_tracking(plan.config.mlflow)  # where its traces go is there from now on
    plan = replace(plan, resources=app_resources(plan.config, experiment_id(plan.config)))
    client, limit = workspace_client(), timedelta(minutes=plan.config.deploy.minutes)
    with _explained(plan.name):
        _made(client, plan, limit, say)
        say(f"Uploading {len(plan.files)} files.")
        _upload(client, plan)
        say("Starting it.")
    started(client, plan.name, plan.source, limit)
    return DeployedApp(plan, client.apps.get(plan.name).url or "")


def started(client: WorkspaceClient, name: str, source: str, limit: timedelta) -> None:
    """Deploy the app from a workspace folder that holds its files, and wait until it runs.

    Raises:
        DeployError: it doesn't start; the message tells what Databricks says.
    """
    from databricks.sdk.service.apps import AppDeployment, AppDeploymentMode

    with _explained(name):
        deployment = AppDeployment(source_code_path=source, mode=AppDeploymentMode.SNAPSHOT)
        client.apps.deploy(name, deployment).result(timeout=limit)


def _made(client: WorkspaceClient, plan: AppPlan, limit: timedelta, say: ProgressCallback) -> None:
    from databricks.sdk.service.apps import App, ComputeState

    app = App(
        plan.name,
        resources=plan.resources,
        user_api_scopes=plan.scopes or None,
        description="An agent, deployed by oneturn.",
    )
    if not plan.exists:
        say("Asking Databricks to make the app; that takes some minutes.")
        client.apps.create(app).result(timeout=limit)
        return
    client.apps.update(plan.name, app)
    found = client.apps.get(plan.name)
    if found.compute_status and found.compute_status.state == ComputeState.STOPPED:
        say("Waking it up.")
        client.apps.start(plan.name).result(timeout=limit)


def _upload(client: WorkspaceClient, plan: AppPlan) -> None:
    from databricks.sdk.service.workspace import ImportFormat

    folders = {str(PurePosixPath(plan.source, path).parent) for path in plan.files}
    for folder in sorted(folders):
        client.workspace.mkdirs(folder)

    def upload(file: tuple[str, bytes]) -> None:
        path, content = file
        client.workspace.upload(f"{plan.source}/{path}", content, format=ImportFormat.RAW, overwrite=True)

    with ThreadPoolExecutor(_UPLOADS) as pool:
        list(pool.map(upload, plan.files.items()))


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    from databricks.sdk.errors import OperationFailed
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield
    except OperationFailed as error:
        said = str(error).rpartition(": ")[2]
        raise DeployError(f"The app {name} doesn't start: {said} Its log: the app's page, Logs.") from error
    except TimeoutError:
        raise DeployError(f"The app {name} isn't ready yet. To wait longer, set deploy.minutes.") from None
    except DatabricksError as error:
        raise DeployError(f"The app {name} can't be deployed: {error}") from error
