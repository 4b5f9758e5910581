"""Serving endpoints and agents' deployments in the stand-in of a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from databricks.sdk.service.serving import (
    EndpointCoreConfigInput,
    EndpointCoreConfigOutput,
    EndpointPendingConfig,
    EndpointState,
    EndpointStateConfigUpdate,
    EndpointStateReady,
    ServedEntityInput,
    ServedEntityOutput,
    ServedModelState,
    ServedModelStateDeployment,
    ServingEndpointDetailed,
)

from tests.databricks.workspace import Answer, Call, Workspace, refused

_ENDPOINTS = "/api/2.0/serving-endpoints"
_ENDPOINT = f"{_ENDPOINTS}/(?P<name>[^/]+)"
_SERVED = f"{_ENDPOINT}/served-models/(?P<served>[^/]+)"
_DEPLOYMENTS = "/api/2.0/agents/deployments"


class Endpoints:
    """The serving endpoints of a workspace: an update is over at once, well or badly.

    Attributes:
        endpoints: by name.
        failing: why a served entity can't be started, by its name: a message, and what its build has logged.
        deployments: what ``databricks.agents`` has recorded.
        locked: whether an update is going on, so that no other can be made.
        waiting: what an endpoint says, one answer after the other, before its next update is over.
    """

    def __init__(self, workspace: Workspace):
        self.endpoints: dict[str, ServingEndpointDetailed] = {}
        self.failing: dict[str, tuple[str, str]] = {}
        self.deployments: list[Mapping[str, Any]] = []
        self.locked = False
        self.waiting: list[str] = []
        self._host = lambda: workspace.host
        routes = {
            ("POST", _ENDPOINTS): self._create,
            ("GET", _ENDPOINT): self._get,
            ("PUT", f"{_ENDPOINT}/config"): self._update,
            ("PATCH", f"{_ENDPOINT}/tags"): lambda call: {"tags": []},
            ("DELETE", _ENDPOINT): self._delete,
            ("GET", f"{_SERVED}/build-logs"): lambda call: {"logs": self._logs(call)},
            ("GET", f"{_SERVED}/logs"): lambda call: {"logs": self._logs(call)},
            ("POST", _DEPLOYMENTS): self._record,
            ("GET", f"{_DEPLOYMENTS}/(?P<model>[^/]+)"): lambda call: {"chain_deployments": self.deployments},
            ("GET", f"{_DEPLOYMENTS}/(?P<model>[^/]+)/versions/(?P<version>.+)"): self._recorded,
            ("DELETE", f"{_DEPLOYMENTS}/(?P<model>[^/]+)/versions/(?P<version>.+)"): self._forget,
            ("GET", "/api/2.0/managed-evals/.*"): lambda call: refused(404, "RESOURCE_DOES_NOT_EXIST", "No monitor."),
            ("GET", "/api/2.1/unity-catalog/tables/.+/exists"): lambda call: {"table_exists": False},
        }
        for (method, pattern), handler in routes.items():
            workspace.on(method, pattern, handler)

    def add_ready(self, name: str) -> None:
        """Let there be an endpoint that isn't the agent's: an LM's."""
        state = EndpointState(EndpointStateConfigUpdate.NOT_UPDATING, EndpointStateReady.READY)
        self.endpoints[name] = ServingEndpointDetailed(name=name, state=state)

    def traffic(self, name: str) -> dict[str, int]:
        """Per cent of the requests by version, of the endpoint's active configuration."""
        config = self.endpoints[name].config
        versions = {entity.name: entity.entity_version for entity in config.served_entities}
        return {versions[route.served_model_name]: route.traffic_percentage for route in config.traffic_config.routes}

    def entity(self, name: str, version: str) -> ServedEntityOutput:
        """What serves a version."""
        return next(found for found in self.endpoints[name].config.served_entities if found.entity_version == version)

    def _create(self, call: Call) -> Any:
        name = call.body["name"]
        if name in self.endpoints:
            return refused(400, "RESOURCE_ALREADY_EXISTS", f"Endpoint {name} exists.")
        config = replace(call, body=call.body["config"]).read_as(EndpointCoreConfigInput)
        without = {key: value for key, value in call.body.items() if key != "config"}
        self.endpoints[name] = replace(call, body=without).read_as(ServingEndpointDetailed)
        return self._configured(self.endpoints[name], config)

    def _get(self, call: Call) -> Any:
        found = self.endpoints.get(call.parts["name"])
        if found is not None and found.config and self.waiting:
            return self._still_updating(found, self.waiting.pop(0))
        return _missing(call.parts["name"]) if found is None else found.as_dict()

    def _still_updating(self, endpoint: ServingEndpointDetailed, message: str) -> Any:
        detailed = ServingEndpointDetailed.from_dict(endpoint.as_dict())
        detailed.state.config_update = EndpointStateConfigUpdate.IN_PROGRESS
        creating = ServedModelStateDeployment.DEPLOYMENT_CREATING
        detailed.config.served_entities[0].state = ServedModelState(creating, message)
        return detailed.as_dict()

    def _update(self, call: Call) -> Any:
        if self.locked:
            return refused(409, "RESOURCE_CONFLICT", "The endpoint is being updated.")
        found = self.endpoints[call.parts["name"]]
        for entity in call.body["served_entities"]:
            unknown = entity.keys() - ServedEntityOutput.from_dict(entity).as_dict().keys()
            assert not unknown, unknown
        config = EndpointCoreConfigInput.from_dict({**call.body, "name": found.name})
        versions = [(entity.entity_name, str(entity.entity_version)) for entity in config.served_entities]
        if len(set(versions)) < len(versions):
            return refused(400, "BAD_REQUEST", "Cannot create 2+ served entities with the same entity and version.")
        return self._configured(found, config)

    def _configured(self, endpoint: ServingEndpointDetailed, config: EndpointCoreConfigInput) -> Any:
        entities = [self._started(entity) for entity in config.served_entities]
        failed = any(entity.name in self.failing for entity in entities)
        traffic, update = config.traffic_config, EndpointStateConfigUpdate
        if failed:
            endpoint.pending_config = EndpointPendingConfig(served_entities=entities, traffic_config=traffic)
        else:
            endpoint.pending_config = None
            endpoint.config = EndpointCoreConfigOutput(served_entities=entities, traffic_config=traffic)
        ready = EndpointStateReady.READY if endpoint.config else EndpointStateReady.NOT_READY
        endpoint.state = EndpointState(update.UPDATE_FAILED if failed else update.NOT_UPDATING, ready)
        return endpoint.as_dict()

    def _started(self, entity: ServedEntityInput) -> ServedEntityOutput:
        started = ServedEntityOutput.from_dict(entity.as_dict() | {"entity_version": str(entity.entity_version)})
        reason, _ = self.failing.get(entity.name or "", ("", ""))
        state = ServedModelStateDeployment
        started.state = ServedModelState(state.DEPLOYMENT_FAILED if reason else state.DEPLOYMENT_READY, reason)
        return started

    def _logs(self, call: Call) -> str:
        return self.failing.get(call.parts["served"], ("", ""))[1]

    def _delete(self, call: Call) -> Any:
        found = self.endpoints.pop(call.parts["name"], None)
        return _missing(call.parts["name"]) if found is None else {}

    def _record(self, call: Call) -> Any:
        review = f"{self._host()}/ml/review-v2/chat?endpoint={call.body['endpoint_name']}"
        version = str(call.body["model_version"])
        self.deployments.append({**call.body, "model_version": version, "review_app_url": review})
        return {"deployed_chain": self.deployments[-1]}

    def _recorded(self, call: Call) -> Any:
        kept = [found for found in self.deployments if found["model_version"] == call.parts["version"]]
        return {"chain_deployments": kept}

    def _forget(self, call: Call) -> Any:
        self.deployments = [found for found in self.deployments if found["model_version"] != call.parts["version"]]
        return {}


def _missing(name: str) -> Answer:
    return refused(404, "RESOURCE_DOES_NOT_EXIST", f"Endpoint with name '{name}' does not exist.")
