"""Change what an endpoint serves without building anything: who gets the requests, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oneturn.errors import DeployError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import EndpointCoreConfigOutput, ServedEntityInput, ServingEndpointDetailed


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
