"""What a configuration needs of a workspace, as the logged model declares it: Databricks gives the agent just that."""

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
    """What the agent reaches with its own credentials: endpoints, indexes, functions, tables; each once."""
    found: list[Resource] = []
    if config.lm.model.startswith(_DATABRICKS) and config.lm.credentials == "agent":
        found.append(DatabricksServingEndpoint(config.lm.model.removeprefix(_DATABRICKS)))
    found += retriever_resources(config.retriever)
    found += tool_resources(config.tools)
    found += [_KINDS[named.kind](named.name) for named in config.deploy.resources]
    return [resource for place, resource in enumerate(found) if resource not in found[:place]]


def scopes_of(config: AgentConfig) -> list[str]:
    """The API scopes that a user's token needs for what is reached on behalf of whoever asks; sorted, each once."""
    scopes = {*tool_scopes(config.tools), *config.deploy.scopes}
    retriever = config.retriever
    if config.lm.credentials == "user" or (retriever.credentials == "user" and _embedding_endpoint(retriever)):
        scopes.add("serving.serving-endpoints")
    if retriever.kind == "databricks" and retriever.credentials == "user":
        scopes.add("vectorsearch.vector-search-indexes")
    return sorted(scopes)


def retriever_resources(config: RetrieverConfig) -> list[Resource]:
    """The index, and the endpoint that embeds, where the agent's own credentials reach them."""
    if config.credentials == "user":
        return []
    found: list[Resource] = []
    if config.kind == "databricks":
        found.append(DatabricksVectorSearchIndex(str(config.index)))
    if endpoint := _embedding_endpoint(config):
        found.append(DatabricksServingEndpoint(endpoint))
    return found


def _embedding_endpoint(config: RetrieverConfig) -> str | None:
    model = config.embeddings.model if config.embeddings else ""
    return model.removeprefix(_DATABRICKS) if model.startswith(_DATABRICKS) else None


def auth_policy_of(config: AgentConfig) -> AuthPolicy | None:
    """What ``log_model(auth_policy=…)`` takes; ``None`` for a configuration that needs nothing of a workspace."""
    resources, scopes = resources_of(config), scopes_of(config)
    if not (resources or scopes):
        return None
    user = UserAuthPolicy(api_scopes=scopes) if scopes else None
    return AuthPolicy(user_auth_policy=user, system_auth_policy=SystemAuthPolicy(resources=resources))
