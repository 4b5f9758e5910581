"""What an app may reach: the configuration's resources, in the words of Databricks Apps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlflow.models.resources import Resource

from oneturn.config import AgentConfig
from oneturn.databricks.app_files import resource_name, secrets_of
from oneturn.databricks.resources import resources_of

if TYPE_CHECKING:
    from databricks.sdk.service.apps import AppResource

_SECURABLES = {
    "function": ("FUNCTION", "EXECUTE"),
    "table": ("TABLE", "SELECT"),
    "vector_search_index": ("TABLE", "SELECT"),  # an index is a table to Unity Catalog
    "uc_connection": ("CONNECTION", "USE_CONNECTION"),
}


def app_resources(config: AgentConfig, experiment_id: str | None) -> list[AppResource]:
    """What the app's service principal needs: the configuration's resources, its secrets, and where traces go."""
    from databricks.sdk.service import apps

    found = [_resource(number, resource) for number, resource in enumerate(resources_of(config), start=1)]
    for variable, (scope, key) in secrets_of(config.deploy.environment).items():
        read = apps.AppResourceSecretSecretPermission.READ
        found.append(apps.AppResource(resource_name(variable), secret=apps.AppResourceSecret(scope, key, read)))
    if experiment_id is not None:
        edit = apps.AppResourceExperimentExperimentPermission.CAN_EDIT
        found.append(apps.AppResource("traces", experiment=apps.AppResourceExperiment(experiment_id, edit)))
    return list(found)


def told(resources: list[AppResource]) -> Iterator[str]:
    """Each resource in a line."""
    for resource in resources:
        (kind, about), *_ = ((key, value) for key, value in resource.as_dict().items() if key != "name")
        which = about.get("securable_full_name") or about.get("name") or about.get("id") or about.get("key")
        yield f"{kind.replace('_', ' ')} {which or about.get('experiment_id')}: {about['permission']}"


def _resource(number: int, resource: Resource) -> AppResource:
    from databricks.sdk.service import apps

    ((kind, (about,)),) = resource.to_dict().items()
    name, called = about["name"], f"{kind.replace('_', '-')}-{number}"
    if kind == "serving_endpoint":
        query = apps.AppResourceServingEndpointServingEndpointPermission.CAN_QUERY
        return apps.AppResource(called, serving_endpoint=apps.AppResourceServingEndpoint(name, query))
    if kind == "sql_warehouse":
        use = apps.AppResourceSqlWarehouseSqlWarehousePermission.CAN_USE
        return apps.AppResource(called, sql_warehouse=apps.AppResourceSqlWarehouse(name, use))
    if kind == "genie_space":
        run = apps.AppResourceGenieSpaceGenieSpacePermission.CAN_RUN
        return apps.AppResource(called, genie_space=apps.AppResourceGenieSpace(called, name, run))
    securable, permission = _SECURABLES[kind]
    return apps.AppResource(
        called,
        uc_securable=apps.AppResourceUcSecurable(
            name,
            apps.AppResourceUcSecurableUcSecurableType(securable),
            apps.AppResourceUcSecurableUcSecurablePermission(permission),
        ),
    )
