"""Plan and run a deployment of a Databricks App."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import mlflow

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.config.tracking import use_store, use_tracking
from oneturn.core.databricks_auth import as_deploy_error, workspace_client
from oneturn.deployment.databricks.app_files import (
    app_files,
    app_resources,
    attached_by_others,
    describe_resources,
)
from oneturn.deployment.databricks.endpoint import ProgressCallback
from oneturn.deployment.preflight import refuse_problems, refuse_undeployable, refuse_unsigned_approvals
from oneturn.deployment.resources import scopes_of
from oneturn.errors import DeployError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.apps import App, AppResource


@dataclass(frozen=True)
class AppPlan:
    """What a deployment of an app will do.

    Attributes:
        name: the app's name.
        exists: whether the app exists.
        source: the workspace folder for its files, a new one per deployment.
        files: the files by path in the app.
        resources: the resources that its service principal gets access to.
        kept: the resources that others have attached to the app, which stay.
        lost: resources of an earlier deployment, and secrets, which it can no longer access.
        scopes: the API scopes of a user's token, for access on behalf of the user.
        config: the agent's configuration.
    """

    name: str
    exists: bool
    source: str
    files: dict[str, bytes]
    resources: list[AppResource]
    scopes: list[str]
    config: AgentConfig
    kept: list[AppResource] = field(default_factory=list)
    lost: list[AppResource] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The plan as text, for confirmation."""
        size = sum(len(content) for content in self.files.values())
        return [
            f"The app {self.name} {'gets a new deployment' if self.exists else 'is created'}.",
            f"{len(self.files)} files ({size / 1000:.0f} kB) are uploaded to {self.source}.",
            *(f"It can access: {line}" for line in describe_resources(self.resources)),
            *(f"It keeps access to: {line}" for line in describe_resources(self.kept)),
            *(f"It loses access to: {line}" for line in describe_resources(self.lost)),
            *(f"On behalf of a user: {scope}" for scope in self.scopes),
        ]


@as_deploy_error("The app can't be deployed")
def plan_app(agent: Agent, *, check: bool = True) -> AppPlan:
    """Plan ``deploy_app`` without changing anything.

    Args:
        agent: the agent to serve.
        check: first check all workspace resources that the configuration names.

    Raises:
        DeployError: the configuration can't be deployed.
        ProgramError: a folder that the agent declares doesn't exist.
    """
    (refuse_problems if check else refuse_undeployable)(agent.config, app=True)
    refuse_unsigned_approvals(agent)
    use_store(agent.config.mlflow, agent.root)
    client, name = workspace_client(), app_name(agent)
    app = _app(client, name)
    attached = (app.resources or []) if app is not None else []
    kept = attached_by_others(attached)
    resources = app_resources(agent.config, experiment_id(agent.config))
    given = set(describe_resources([*resources, *kept]))
    return AppPlan(
        name,
        app is not None,
        _new_source_path(client, agent.config, name),
        app_files(agent),
        resources,
        scopes_of(agent.config),
        agent.config,
        kept,
        [each for each in attached if not given.issuperset(describe_resources([each]))],
    )


def app_name(agent: Agent) -> str:
    """The configured name, else the agent's name in lower case with hyphens."""
    return agent.config.deploy.app.name or re.sub(r"[^a-z0-9]+", "-", agent.name.lower()).strip("-")


def experiment_id(config: AgentConfig) -> str | None:
    """The id of the experiment for traces; ``None`` if it doesn't exist yet."""
    experiment = mlflow.get_experiment_by_name(config.mlflow.experiment)
    return None if experiment is None else str(experiment.experiment_id)


def _app(client: WorkspaceClient, name: str) -> App | None:
    from databricks.sdk.errors import NotFound

    try:
        return client.apps.get(name)
    except NotFound:
        return None


def _new_source_path(client: WorkspaceClient, config: AgentConfig, name: str) -> str:
    """A new folder per deployment, so that an earlier deployment can be restored."""
    folder = config.deploy.app.source_path or f"/Workspace/Users/{client.current_user.me().user_name}/apps/{name}"
    return f"{folder.rstrip('/')}/{datetime.now(timezone.utc):%Y-%m-%dT%H-%M-%S}"


_PARALLEL_UPLOADS = 8
"""Files uploaded in parallel."""


@dataclass(frozen=True)
class DeployedApp:
    """A running app.

    Attributes:
        plan: the executed plan.
        url: the app's URL.
    """

    plan: AppPlan
    url: str


@as_deploy_error("The app can't be deployed")
def deploy_app(plan: AppPlan, on_progress: ProgressCallback = print) -> DeployedApp:
    """Create or update the app, upload its files, start it, and wait until it runs.

    Raises:
        DeployError: it can't be created or doesn't start; the message has Databricks' error.
    """
    use_tracking(plan.config.mlflow)  # creates the experiment for its traces
    plan = replace(plan, resources=app_resources(plan.config, experiment_id(plan.config)))
    client, limit = workspace_client(), timedelta(minutes=plan.config.deploy.minutes)
    with _deploy_errors(plan.name):
        _create_or_update(client, plan, limit, on_progress)
        on_progress(f"Uploading {len(plan.files)} files.")
        _upload(client, plan)
        on_progress("Starting the app.")
    start_app(client, plan.name, plan.source, limit)
    return DeployedApp(plan, client.apps.get(plan.name).url or "")


def start_app(client: WorkspaceClient, name: str, source: str, limit: timedelta) -> None:
    """Deploy the app from a workspace folder with its files, and wait until it runs.

    Raises:
        DeployError: it doesn't start; the message has Databricks' error.
    """
    from databricks.sdk.service.apps import AppDeployment, AppDeploymentMode

    with _deploy_errors(name):
        deployment = AppDeployment(source_code_path=source, mode=AppDeploymentMode.SNAPSHOT)
        client.apps.deploy(name, deployment).result(timeout=limit)


def _create_or_update(client: WorkspaceClient, plan: AppPlan, limit: timedelta, on_progress: ProgressCallback) -> None:
    from databricks.sdk.service.apps import App, ComputeState

    app = App(
        plan.name,
        resources=[*plan.resources, *plan.kept],
        user_api_scopes=plan.scopes or None,
        description="An agent, deployed by oneturn.",
    )
    if not plan.exists:
        on_progress("Databricks creates the app; this takes a few minutes.")
        client.apps.create(app).result(timeout=limit)
        return
    client.apps.update(plan.name, app)
    current = client.apps.get(plan.name)
    if current.compute_status and current.compute_status.state == ComputeState.STOPPED:
        on_progress("Starting the app's compute.")
        client.apps.start(plan.name).result(timeout=limit)


def _upload(client: WorkspaceClient, plan: AppPlan) -> None:
    from databricks.sdk.service.workspace import ImportFormat

    folders = {str(PurePosixPath(plan.source, path).parent) for path in plan.files}
    for folder in sorted(folders):
        client.workspace.mkdirs(folder)

    def upload(file: tuple[str, bytes]) -> None:
        path, content = file
        client.workspace.upload(f"{plan.source}/{path}", content, format=ImportFormat.RAW, overwrite=True)

    with ThreadPoolExecutor(_PARALLEL_UPLOADS) as pool:
        list(pool.map(upload, plan.files.items()))


@contextlib.contextmanager
def _deploy_errors(name: str) -> Iterator[None]:
    from databricks.sdk.errors import OperationFailed
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield
    except OperationFailed as error:
        message = str(error).rpartition(": ")[2]
        raise DeployError(f"The app {name} doesn't start: {message} See the logs on the app's page.") from error
    except TimeoutError:
        raise DeployError(f"The app {name} isn't ready yet. To wait longer, set deploy.minutes.") from None
    except DatabricksError as error:
        raise DeployError(f"The app {name} can't be deployed: {error}") from error
