"""Databricks Apps and workspace files in the stand-in of a workspace."""

from __future__ import annotations

import re
from email import message_from_bytes
from typing import Any

from databricks.sdk.service.apps import (
    App,
    AppDeployment,
    AppDeploymentState,
    AppDeploymentStatus,
    ComputeState,
    ComputeStatus,
)

from tests.databricks.workspace import Answer, Call, Workspace, refused

_APP = "/api/2.0/apps/(?P<name>[^/]+)"


class Apps:
    """The apps of a workspace: each is ready at once.

    Attributes:
        apps: by name.
        deployments: of each app, by name, the latest first.
        files: what was uploaded, by its path.
        failing: why no deployment starts; empty if they do.
    """

    def __init__(self, workspace: Workspace):
        self.apps: dict[str, App] = {}
        self.deployments: dict[str, list[AppDeployment]] = {}
        self.files: dict[str, bytes] = {}
        self.failing = ""
        routes = {
            ("POST", "/api/2.0/apps"): self._create,
            ("GET", _APP): self._get,
            ("PATCH", _APP): self._update,
            ("POST", f"{_APP}/start"): self._start,
            ("POST", f"{_APP}/deployments"): self._deploy,
            ("GET", f"{_APP}/deployments"): self._list,
            ("GET", f"{_APP}/deployments/(?P<id>[^/]+)"): self._deployment,
            ("POST", "/api/2.0/workspace/mkdirs"): lambda call: {},
            ("POST", "/api/2.0/workspace/import"): self._import,
        }
        for (method, pattern), handler in routes.items():
            workspace.on(method, pattern, handler)

    def _create(self, call: Call) -> Any:
        app = call.read_as(App)
        self.apps[app.name] = app
        app.url = f"https://{app.name}-17.aws.databricksapps.com"
        return self._started(app)

    def _started(self, app: App) -> Any:
        app.compute_status = ComputeStatus(state=ComputeState.ACTIVE)
        return app.as_dict()

    def _get(self, call: Call) -> Any:
        app = self.apps.get(call.parts["name"])
        missing = refused(404, "RESOURCE_DOES_NOT_EXIST", f"App {call.parts['name']} does not exist.")
        return missing if app is None else app.as_dict()

    def _update(self, call: Call) -> Any:
        app, changed = self.apps[call.parts["name"]], call.read_as(App)
        app.resources, app.user_api_scopes = changed.resources, changed.user_api_scopes
        return app.as_dict()

    def _start(self, call: Call) -> Any:
        return self._started(self.apps[call.parts["name"]])

    def _deploy(self, call: Call) -> Any:
        deployment, kept = call.read_as(AppDeployment), self.deployments.setdefault(call.parts["name"], [])
        state = AppDeploymentState.FAILED if self.failing else AppDeploymentState.SUCCEEDED
        deployment.deployment_id = str(len(kept) + 1)
        deployment.create_time = f"2026-11-23T12:00:{len(kept):02}Z"
        deployment.status = AppDeploymentStatus(self.failing or "App started successfully", state)
        kept.insert(0, deployment)
        return deployment.as_dict()

    def _list(self, call: Call) -> Any:
        return {"app_deployments": [found.as_dict() for found in self.deployments.get(call.parts["name"], [])]}

    def _deployment(self, call: Call) -> Any:
        kept = self.deployments[call.parts["name"]]
        return next(found for found in kept if found.deployment_id == call.parts["id"]).as_dict()

    def _import(self, call: Call) -> Any:
        head = f"Content-Type: {call.headers['content-type']}\r\n\r\n".encode()
        parts = {
            re.search(r'name="(\w+)"', part["Content-Disposition"])[1]: part.get_payload(decode=True)
            for part in message_from_bytes(head + call.body).get_payload()
        }
        if parts["format"] != b"RAW":
            return Answer(400, {"error_code": "BAD_REQUEST", "message": "A notebook, not a file."})
        self.files[parts["path"].decode()] = parts["content"]
        return {}
