"""A Model Serving endpoint: its served versions, traffic, state and logs."""

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
"""Called with each progress message, one line of text."""

_LOG_LINES = 15
_LONGEST_NAME = 63
_PREFIX = "agents_"


def endpoint_name(model: str) -> str:
    """The endpoint name that ``databricks.agents`` derives from a registered model."""
    return _PREFIX + model[: _LONGEST_NAME - len(_PREFIX)].replace(".", "-").rstrip("_-")


def endpoint_of(client: WorkspaceClient, name: str) -> ServingEndpointDetailed | None:
    """The endpoint; ``None`` if it doesn't exist."""
    from databricks.sdk.errors import NotFound

    try:
        return client.serving_endpoints.get(name)
    except NotFound:
        return None


def serving_now(endpoint: ServingEndpointDetailed | None, model: str) -> ServedEntityOutput | None:
    """The served entity of ``model`` with the most traffic; ``None`` before the first one is ready."""
    if endpoint is None or endpoint.config is None:
        return None
    routes = (endpoint.config.traffic_config.routes if endpoint.config.traffic_config else None) or []
    share = {route.served_entity_name or route.served_model_name: route.traffic_percentage or 0 for route in routes}
    entities = [entity for entity in endpoint.config.served_entities or [] if entity.entity_name == model]
    return max(entities, key=lambda entity: share.get(entity.name, 0), default=None)


def wait_until_ready(
    client: WorkspaceClient, name: str, version: str, minutes: float, on_progress: ProgressCallback
) -> None:
    """Wait until the endpoint's update is complete and it serves ``version``; report changes of its state.

    Raises:
        DeployError: it doesn't start, with the cause from its state and logs; or the time limit is exceeded.
    """
    from databricks.sdk.errors import OperationFailed

    reported: list[str] = []

    def report(endpoint: ServingEndpointDetailed) -> None:
        for line in _state_messages(endpoint):
            if line not in reported:
                reported.append(line)
                on_progress(line)

    try:
        client.serving_endpoints.wait_get_serving_endpoint_not_updating(name, timedelta(minutes=minutes), report)
    except OperationFailed:
        raise DeployError(failure_reason(client, name, version)) from None
    except TimeoutError:
        raise DeployError(
            f"{name} isn't ready after {minutes:g} minutes; the deployment continues, see its page in the workspace. "
            f"To wait longer, set deploy.minutes. Last state: {reported[-1] if reported else 'none reported'}"
        ) from None
    endpoint = client.serving_endpoints.get(name)
    if not (endpoint.state and endpoint.state.ready and endpoint.state.ready.value == "READY"):
        raise DeployError(failure_reason(client, name, version))


def failure_reason(client: WorkspaceClient, name: str, version: str) -> str:
    """Why a version isn't ready on the endpoint: its state and the end of its logs."""
    endpoint = client.serving_endpoints.get(name)
    for entity in _entities(endpoint):
        if entity.entity_version == version and entity.name is not None:
            reason = entity.state.deployment_state_message if entity.state else None
            logs = _log_tail(client, name, entity.name)
            message = f"Version {version} doesn't start on {name}: {reason or 'Databricks gives no reason'}"
            return f"{message}\n{logs}" if logs else message
    return f"{name} couldn't be updated, without a reason for version {version}; see its page in the workspace."


def _entities(endpoint: ServingEndpointDetailed) -> Iterator[ServedEntityOutput]:
    for config in (endpoint.pending_config, endpoint.config):
        yield from (config.served_entities if config else None) or []


def _state_messages(endpoint: ServingEndpointDetailed) -> Iterator[str]:
    for entity in _entities(endpoint):
        if entity.state and entity.state.deployment_state_message:
            yield f"version {entity.entity_version}: {entity.state.deployment_state_message}"


def _log_tail(client: WorkspaceClient, name: str, served: str) -> str:
    """The end of the build log, or of the server log if there is no build log."""
    from databricks.sdk.errors.base import DatabricksError

    for kind, read in (("build", client.serving_endpoints.build_logs), ("server", client.serving_endpoints.logs)):
        try:
            lines = (read(name, served).logs or "").strip().splitlines()
        except DatabricksError:  # no log yet, or no permission to read it
            continue
        if lines:
            return "\n".join([f"End of the {kind} log:", *(f"  {line}" for line in lines[-_LOG_LINES:])])
    return ""


def served_versions(endpoint: ServingEndpointDetailed | None, model: str) -> list[str]:
    """The versions of ``model`` on the endpoint, unordered."""
    entities = (endpoint.config.served_entities if endpoint and endpoint.config else None) or []
    return [str(entity.entity_version) for entity in entities if entity.entity_name == model]


def entity_of(config: EndpointCoreConfigOutput, model: str, version: str) -> ServedEntityInput:
    """The served entity of a version, as input for an update of the endpoint.

    Raises:
        DeployError: the version isn't on the endpoint.
    """
    from databricks.sdk.service.serving import ServedEntityInput

    for entity in config.served_entities or []:
        if (entity.entity_name, entity.entity_version) == (model, version):
            return ServedEntityInput.from_dict(entity.as_dict())
    raise DeployError(f"Version {version} of {model} is no longer on the endpoint; deploy it again.")


def give_requests_to(client: WorkspaceClient, name: str, entity: ServedEntityInput) -> None:
    """Route all requests of the endpoint to one served entity, which replaces the entity with its name.

    Raises:
        DeployError: the endpoint can't be updated now.
    """
    from databricks.sdk.errors.base import DatabricksError
    from databricks.sdk.service.serving import Route, ServedEntityInput, TrafficConfig

    config = client.serving_endpoints.get(name).config
    current = (config.served_entities if config else None) or []
    entities = [entity if each.name == entity.name else ServedEntityInput.from_dict(each.as_dict()) for each in current]
    routes = [
        Route(served_model_name=each.name, traffic_percentage=100 if each.name == entity.name else 0)
        for each in entities
    ]
    try:
        client.serving_endpoints.update_config(
            name, served_entities=entities, traffic_config=TrafficConfig(routes=routes)
        )
    except DatabricksError as error:
        raise DeployError(f"{name} can't be updated: {error}") from error
