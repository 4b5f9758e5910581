"""Workspace resources that a configuration needs; a logged model declares them so that Databricks grants access."""

from __future__ import annotations

from mlflow.models.auth_policy import AuthPolicy, SystemAuthPolicy, UserAuthPolicy
from mlflow.models.resources import (
    DatabricksFunction,
    DatabricksGenieSpace,
    DatabricksResource,
    DatabricksServingEndpoint,
    DatabricksSQLWarehouse,
    DatabricksTable,
    DatabricksUCConnection,
    DatabricksVectorSearchIndex,
    Resource,
)

from oneturn.config import AgentConfig, RetrieverConfig
from oneturn.toolsets import tool_resources, tool_scopes

_DATABRICKS = "databricks/"
_KINDS: dict[str, type[DatabricksResource]] = {
    "function": DatabricksFunction,
    "genie_space": DatabricksGenieSpace,
    "serving_endpoint": DatabricksServingEndpoint,
    "sql_warehouse": DatabricksSQLWarehouse,
    "table": DatabricksTable,
    "uc_connection": DatabricksUCConnection,
    "vector_search_index": DatabricksVectorSearchIndex,
}


def resources_of(config: AgentConfig) -> list[Resource]:
    """The resources that the agent accesses with its own credentials: endpoints, indexes, functions, tables; unique."""
    resources: list[Resource] = []
    if config.lm.model.startswith(_DATABRICKS) and config.lm.credentials == "agent":
        resources.append(DatabricksServingEndpoint(config.lm.model.removeprefix(_DATABRICKS)))
    resources += retriever_resources(config.retriever)
    resources += tool_resources(config.tools)
    resources += [_KINDS[declared.kind](declared.name) for declared in config.deploy.resources]
    return [resource for index, resource in enumerate(resources) if resource not in resources[:index]]


def scopes_of(config: AgentConfig) -> list[str]:
    """The API scopes that a user's token needs for access on behalf of the user; sorted and unique."""
    scopes = {*tool_scopes(config.tools), *config.deploy.scopes}
    retriever = config.retriever
    if config.lm.credentials == "user" or (retriever.credentials == "user" and _embedding_endpoint(retriever)):
        scopes.add("serving.serving-endpoints")
    if retriever.kind == "databricks" and retriever.credentials == "user":
        scopes.add("vectorsearch.vector-search-indexes")
    return sorted(scopes)


def retriever_resources(config: RetrieverConfig) -> list[Resource]:
    """The index and the embedding endpoint, if the agent accesses them with its own credentials."""
    if config.credentials == "user":
        return []
    resources: list[Resource] = []
    if config.kind == "databricks":
        resources.append(DatabricksVectorSearchIndex(str(config.index)))
    if endpoint := _embedding_endpoint(config):
        resources.append(DatabricksServingEndpoint(endpoint))
    return resources


def _embedding_endpoint(config: RetrieverConfig) -> str | None:
    model = config.embeddings.model if config.embeddings else ""
    return model.removeprefix(_DATABRICKS) if model.startswith(_DATABRICKS) else None


def auth_policy_of(config: AgentConfig) -> AuthPolicy | None:
    """The ``auth_policy`` for MLflow's ``log_model``; ``None`` if the configuration needs no workspace resources."""
    resources, scopes = resources_of(config), scopes_of(config)
    if not (resources or scopes):
        return None
    user = UserAuthPolicy(api_scopes=scopes) if scopes else None
    return AuthPolicy(user_auth_policy=user, system_auth_policy=SystemAuthPolicy(resources=resources))
