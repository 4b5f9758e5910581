"""A serving endpoint as it is: who gets the requests, what it waits for, and why something didn't start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from oneturn.errors import DeployError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import (
        EndpointCoreConfigOutput,
        ServedEntityInput,
        ServedEntityOutput,
        ServingEndpointDetailed,
    )


ProgressCallback = Callable[[str], object]
"""Told what happens, a line each."""

_LOG_LINES = 15
_LONGEST_NAME = 63
_PREFIX = "agents_"


def endpoint_name(model: str) -> str:
    """The name that ``databricks.agents`` makes of a registered model's."""
    return _PREFIX + model[: _LONGEST_NAME - len(_PREFIX)].replace(".", "-").rstrip("_-")


def endpoint_of(client: WorkspaceClient, name: str) -> ServingEndpointDetailed | None:
    """The endpoint; ``None`` if there is none of this name."""
    from databricks.sdk.errors import NotFound

    try:
        return client.serving_endpoints.get(name)
    except NotFound:
        return None


def serving_now(endpoint: ServingEndpointDetailed | None, model: str) -> ServedEntityOutput | None:
    """What serves most of the requests among the versions of ``model``; ``None`` before the first one is ready."""
    if endpoint is None or endpoint.config is None:
        return None
    routes = (endpoint.config.traffic_config.routes if endpoint.config.traffic_config else None) or []
    share = {route.served_entity_name or route.served_model_name: route.traffic_percentage or 0 for route in routes}
    entities = [entity for entity in endpoint.config.served_entities or [] if entity.entity_name == model]
    return max(entities, key=lambda entity: share.get(entity.name, 0), default=None)


def wait_until_ready(client: WorkspaceClient, name: str, version: str, minutes: float, say: ProgressCallback) -> None:
    """Wait until the endpoint has done with its update, and serves ``version``; tell what changes meanwhile.

    Raises:
        DeployError: it didn't start, with the cause from its state and its logs; or it takes longer.
    """
    from databricks.sdk.errors import OperationFailed

    told: list[str] = []

    def tell(found: ServingEndpointDetailed) -> None:
        for line in _state(found):
            if line not in told:
                told.append(line)
                say(line)

    try:
        client.serving_endpoints.wait_get_serving_endpoint_not_updating(name, timedelta(minutes=minutes), tell)
    except OperationFailed:
        raise DeployError(why_not(client, name, version)) from None
    except TimeoutError:
        raise DeployError(
            f"{name} isn't ready after {minutes:g} minutes, and goes on by itself; its page in the workspace tells "
            f"more. To wait longer, set deploy.minutes. Last it said: {told[-1] if told else 'nothing'}"
        ) from None
    found = client.serving_endpoints.get(name)
    if not (found.state and found.state.ready and found.state.ready.value == "READY"):
        raise DeployError(why_not(client, name, version))


def why_not(client: WorkspaceClient, name: str, version: str) -> str:
    """Why a version of the endpoint doesn't answer: what its state says, and the end of its logs."""
    endpoint = client.serving_endpoints.get(name)
    for entity in _entities(endpoint):
        if entity.entity_version == version and entity.name is not None:
            reason = entity.state.deployment_state_message if entity.state else None
            logs = _logs(client, name, entity.name)
            said = f"Version {version} doesn't start on {name}: {reason or 'Databricks gives no reason'}"
            return f"{said}\n{logs}" if logs else said
    return f"{name} couldn't be updated, and names no reason for version {version}; its page in the workspace may."


def _entities(endpoint: ServingEndpointDetailed) -> Iterator[ServedEntityOutput]:
    for config in (endpoint.pending_config, endpoint.config):
        yield from (config.served_entities if config else None) or []


def _state(endpoint: ServingEndpointDetailed) -> Iterator[str]:
    for entity in _entities(endpoint):
        if entity.state and entity.state.deployment_state_message:
            yield f"version {entity.entity_version}: {entity.state.deployment_state_message}"


def _logs(client: WorkspaceClient, name: str, served: str) -> str:
    """The end of the build's log, or, where the build went well, of the server's."""
    from databricks.sdk.errors.base import DatabricksError

    for kind, read in (("build", client.serving_endpoints.build_logs), ("server", client.serving_endpoints.logs)):
        try:
            lines = (read(name, served).logs or "").strip().splitlines()
        except DatabricksError:  # none yet, or not for us to read
            continue
        if lines:
            return "\n".join([f"The {kind}'s log ends:", *(f"  {line}" for line in lines[-_LOG_LINES:])])
    return ""


def served(endpoint: ServingEndpointDetailed | None, model: str) -> list[str]:
    """The versions of ``model`` that the endpoint keeps ready, in no order."""
    entities = (endpoint.config.served_entities if endpoint and endpoint.config else None) or []
    return [str(entity.entity_version) for entity in entities if entity.entity_name == model]


def entity_of(config: EndpointCoreConfigOutput, model: str, version: str) -> ServedEntityInput:
    """What serves a version, as it is sent to be served again.

    Raises:
        DeployError: the endpoint doesn't keep this version.
    """
    from databricks.sdk.service.serving import ServedEntityInput

    for entity in config.served_entities or []:
        if (entity.entity_name, entity.entity_version) == (model, version):
            return ServedEntityInput.from_dict(entity.as_dict())
    raise DeployError(f"Version {version} of {model} isn't on the endpoint any more.")


def give_requests_to(client: WorkspaceClient, name: str, entity: ServedEntityInput) -> None:
    """Send all requests of the endpoint to one of its served entities, which replaces the one of its name.

    Raises:
        DeployError: the endpoint can't be changed now.
    """
    from databricks.sdk.errors.base import DatabricksError
    from databricks.sdk.service.serving import Route, ServedEntityInput, TrafficConfig

    config = client.serving_endpoints.get(name).config
    kept = (config.served_entities if config else None) or []
    entities = [entity if other.name == entity.name else ServedEntityInput.from_dict(other.as_dict()) for other in kept]
    routes = [
        Route(served_model_name=other.name, traffic_percentage=100 if other.name == entity.name else 0)
        for other in entities
    ]
    try:
        client.serving_endpoints.update_config(
            name, served_entities=entities, traffic_config=TrafficConfig(routes=routes)
        )
    except DatabricksError as error:
        raise DeployError(f"{name} can't be changed: {error}") from error
