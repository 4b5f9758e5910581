"""The files of a Databricks App that serves an agent: its code as it stands here, and what starts it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mlflow.models.resources import Resource

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.config.loading import CONFIG_VARIABLE
from oneturn.deployment.model_logging import REQUIREMENTS, code_paths, requirements
from oneturn.deployment.resources import resources_of

if TYPE_CHECKING:
    from databricks.sdk.service.apps import AppResource


_SECRET = re.compile(r"\{\{secrets/(?P<scope>[^/]+)/(?P<key>[^/}]+)\}\}")
_CONFIG = "oneturn.yaml"
_LEFT_OUT = {"__pycache__", ".DS_Store"}

_START = '''"""Serve the agent: MLflow's AgentServer at the port that Databricks Apps says."""

import os

import oneturn

oneturn.serve(oneturn.load_agent("agent.py"), host="0.0.0.0", port=int(os.environ["DATABRICKS_APP_PORT"]))
'''


def app_files(agent: Agent) -> dict[str, bytes]:
    """Each file by its path in the app: the agent, oneturn itself, the pinned requirements and the start.

    Raises:
        ProgramError: a folder that the agent declares isn't there.
    """
    texts = {
        "app.py": _START,
        "app.yaml": yaml.safe_dump(_manifest(agent), sort_keys=False),
        REQUIREMENTS: "\n".join(requirements(agent)) + "\n",
        _CONFIG: yaml.safe_dump(agent.config.to_model_config(), sort_keys=False),
        "agent.py": (agent.root / "agent.py").read_text(encoding="utf-8"),
    }
    found = {name: text.encode() for name, text in texts.items()}
    for path in code_paths(agent):
        found |= dict(_files(path))
    return found


def secrets_of(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Scope and key of each variable whose value is a secret's reference, by the variable's name."""
    matches = {name: _SECRET.fullmatch(value) for name, value in environment.items()}
    return {name: (match["scope"], match["key"]) for name, match in matches.items() if match is not None}


def resource_name(variable: str) -> str:
    """What an app calls the secret that an environment variable holds."""
    return variable.lower().replace("_", "-")


def _manifest(agent: Agent) -> dict[str, Any]:
    """The app's ``app.yaml``: Databricks puts a secret in at the start, from the app's resource of that name."""
    environment = agent.config.deploy.environment
    secrets = secrets_of(environment)
    variables = [{"name": CONFIG_VARIABLE, "value": _CONFIG}]
    for name, value in environment.items():
        given = {"valueFrom": resource_name(name)} if name in secrets else {"value": value}
        variables.append({"name": name, **given})
    return {"command": ["python", "app.py"], "env": variables}


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file():
        yield path.name, path.read_bytes()
        return
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path.parent)
        if file.is_file() and not _LEFT_OUT & set(inside.parts):
            yield inside.as_posix(), file.read_bytes()


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


def describe_resources(resources: list[AppResource]) -> Iterator[str]:
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
