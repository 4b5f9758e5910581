"""Deploy an agent as a Databricks App: MLflow's AgentServer, with the agent's code as it stands here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from oneturn.databricks.app_plan import AppPlan, experiment_id
from oneturn.databricks.app_resources import app_resources
from oneturn.databricks.credentials import workspace_client
from oneturn.databricks.endpoint import Say
from oneturn.databricks.failures import told_in_a_line
from oneturn.errors import DeployError
from oneturn.tracking import use_tracking

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

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


@told_in_a_line("The app can't be deployed")
def deploy_app(plan: AppPlan, say: Say = print) -> DeployedApp:
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


def _made(client: WorkspaceClient, plan: AppPlan, limit: timedelta, say: Say) -> None:
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
