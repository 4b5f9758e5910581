"""The files and resources of a Databricks App that serves an agent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mlflow.models.resources import Resource

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.config.loading import CONFIG_VARIABLE
from oneturn.config.tracking import EXPERIMENT_VARIABLE
from oneturn.deployment.model_logging import REQUIREMENTS, code_paths, requirements
from oneturn.deployment.resources import resources_of

if TYPE_CHECKING:
    from databricks.sdk.service.apps import AppResource


_SECRET = re.compile(r"\{\{secrets/(?P<scope>[^/]+)/(?P<key>[^/}]+)\}\}")
_CONFIG = "oneturn.yaml"
_TRACES = "traces"  # the app's resource that is its experiment
_EXCLUDED = {"__pycache__", ".DS_Store"}

_START = '''"""Serve the agent on the port set by Databricks Apps."""

import os

import oneturn

oneturn.serve(oneturn.load_agent("agent.py"), host="0.0.0.0", port=int(os.environ["DATABRICKS_APP_PORT"]))
'''


def app_files(agent: Agent) -> dict[str, bytes]:
    """The files by path in the app: the agent, oneturn, the pinned requirements and the start script.

    Raises:
        ProgramError: a folder that the agent declares doesn't exist.
    """
    texts = {
        "app.py": _START,
        "app.yaml": yaml.safe_dump(_manifest(agent), sort_keys=False),
        REQUIREMENTS: "\n".join(requirements(agent)) + "\n",
        _CONFIG: yaml.safe_dump(agent.config.to_model_config(), sort_keys=False),
        "agent.py": (agent.root / "agent.py").read_text(encoding="utf-8"),
    }
    contents = {name: text.encode() for name, text in texts.items()}
    for path in code_paths(agent):
        contents |= dict(_files(path))
    return contents


def secrets_of(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Scope and key of the variables whose value is a reference to a secret, by variable name."""
    matches = {name: _SECRET.fullmatch(value) for name, value in environment.items()}
    return {name: (match["scope"], match["key"]) for name, match in matches.items() if match is not None}


def resource_name(variable: str) -> str:
    """The name of the app resource for the secret in an environment variable."""
    return variable.lower().replace("_", "-")


def _manifest(agent: Agent) -> dict[str, Any]:
    """The app's ``app.yaml``; at start, Databricks inserts secrets and the experiment from the app's resources."""
    environment = agent.config.deploy.environment
    secrets = secrets_of(environment)
    variables = [{"name": CONFIG_VARIABLE, "value": _CONFIG}, {"name": EXPERIMENT_VARIABLE, "valueFrom": _TRACES}]
    for name, value in environment.items():
        entry = {"valueFrom": resource_name(name)} if name in secrets else {"value": value}
        variables.append({"name": name, **entry})
    return {"command": ["python", "app.py"], "env": variables}


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file():
        yield path.name, path.read_bytes()
        return
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path.parent)
        if file.is_file() and not _EXCLUDED & set(relative.parts):
            yield relative.as_posix(), file.read_bytes()


_SECURABLES = {
    "function": ("FUNCTION", "EXECUTE"),
    "table": ("TABLE", "SELECT"),
    "vector_search_index": ("TABLE", "SELECT"),  # an index is a table to Unity Catalog
    "uc_connection": ("CONNECTION", "USE_CONNECTION"),
}


def app_resources(config: AgentConfig, experiment_id: str | None) -> list[AppResource]:
    """The resources that the app's service principal needs: those of the configuration, secrets, and the experiment."""
    from databricks.sdk.service import apps

    resources = [_resource(number, resource) for number, resource in enumerate(resources_of(config), start=1)]
    for variable, (scope, key) in secrets_of(config.deploy.environment).items():
        can_read = apps.AppResourceSecretSecretPermission.READ
        resources.append(apps.AppResource(resource_name(variable), secret=apps.AppResourceSecret(scope, key, can_read)))
    if experiment_id is not None:
        can_edit = apps.AppResourceExperimentExperimentPermission.CAN_EDIT
        resources.append(apps.AppResource(_TRACES, experiment=apps.AppResourceExperiment(experiment_id, can_edit)))
    return list(resources)


_OWN_NAME = re.compile(
    "(serving-endpoint|sql-warehouse|genie-space|function|table|vector-search-index|uc-connection)-[0-9]+"
)


def attached_by_others(attached: Iterable[AppResource]) -> list[AppResource]:
    """Those of an app's resources that a person or another tool attached, such as a database: a deployment keeps them.

    A secret isn't kept: those of earlier deployments have any name.
    """
    return [each for each in attached if not (each.secret or each.name == _TRACES or _OWN_NAME.fullmatch(each.name))]


def describe_resources(resources: Iterable[AppResource]) -> Iterator[str]:
    """Yield one line of text per resource."""
    for resource in resources:
        (kind, settings), *_ = ((key, value) for key, value in resource.as_dict().items() if isinstance(value, dict))
        name = settings.get("securable_full_name") or settings.get("name") or settings.get("id") or settings.get("key")
        name, permission = name or settings.get("database_name"), settings.get("permission", "no permission")
        yield f"{kind.replace('_', ' ')} {name or settings.get('experiment_id')}: {permission}"


def _resource(number: int, resource: Resource) -> AppResource:
    from databricks.sdk.service import apps

    ((kind, (settings,)),) = resource.to_dict().items()
    name, label = settings["name"], f"{kind.replace('_', '-')}-{number}"
    if kind == "serving_endpoint":
        can_query = apps.AppResourceServingEndpointServingEndpointPermission.CAN_QUERY
        return apps.AppResource(label, serving_endpoint=apps.AppResourceServingEndpoint(name, can_query))
    if kind == "sql_warehouse":
        can_use = apps.AppResourceSqlWarehouseSqlWarehousePermission.CAN_USE
        return apps.AppResource(label, sql_warehouse=apps.AppResourceSqlWarehouse(name, can_use))
    if kind == "genie_space":
        can_run = apps.AppResourceGenieSpaceGenieSpacePermission.CAN_RUN
        return apps.AppResource(label, genie_space=apps.AppResourceGenieSpace(label, name, can_run))
    securable, permission = _SECURABLES[kind]
    return apps.AppResource(
        label,
        uc_securable=apps.AppResourceUcSecurable(
            name,
            apps.AppResourceUcSecurableUcSecurableType(securable),
            apps.AppResourceUcSecurableUcSecurablePermission(permission),
        ),
    )
