"""The tools that a configuration names, and what each needs of a workspace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import dspy
from mlflow.models.resources import (
    DatabricksFunction,
    DatabricksGenieSpace,
    DatabricksServingEndpoint,
    DatabricksSQLWarehouse,
    DatabricksUCConnection,
    DatabricksVectorSearchIndex,
    Resource,
)

from oneturn.config import AgentConfig
from oneturn.config.tools import GenieTool, McpTools, ServingEndpointTool, ToolConfig, UnityCatalogTool
from oneturn.toolsets.endpoint import serving_endpoint_tool
from oneturn.toolsets.genie import genie_tool
from oneturn.toolsets.mcp import mcp_tools
from oneturn.toolsets.unity_catalog import unity_catalog_tool

_MANAGED = re.compile(r"(?:https?://[^/]+)?/api/2\.0/mcp/(?P<kind>[\w-]+)/(?P<rest>[^?#]+?)/?(?:[?#].*)?")
_MCP_SCOPES = {
    "functions": "mcp.functions",
    "genie": "mcp.genie",
    "vector-search": "mcp.vectorsearch",
    "external": "mcp.external",
}


def build_tools(config: AgentConfig) -> list[dspy.Tool]:
    """The tools of the configuration's list ``tools``, in its order; hand them to your module with your own.

    Functions of Unity Catalog and MCP servers are asked what they take, now.

    Raises:
        ConfigError: an extra isn't installed; a server or a function can't be reached, or there is none.
        ProgramError: a tool's name can't be used.
    """
    return [made for entry in config.tools for made in _made(entry)]


def tool_resources(entries: Iterable[ToolConfig]) -> list[Resource]:
    """What the tools reach with the agent's own credentials, as ``log_model(auth_policy=…)`` declares it."""
    return [resource for entry in entries for resource in _resources(entry)]


def tool_scopes(entries: Iterable[ToolConfig]) -> list[str]:
    """The API scopes that a user's token needs for what is reached on behalf of whoever asks; sorted, each once."""
    return sorted({scope for entry in entries for scope in _scopes(entry)})


def _made(entry: ToolConfig) -> list[dspy.Tool]:
    if isinstance(entry, McpTools):
        return mcp_tools(entry)
    if isinstance(entry, UnityCatalogTool):
        return [unity_catalog_tool(entry)]
    return [genie_tool(entry) if isinstance(entry, GenieTool) else serving_endpoint_tool(entry)]


def _resources(entry: ToolConfig) -> Iterator[Resource]:
    if isinstance(entry, McpTools):
        if entry.who is not None:  # a user's, too: the agent reads what its tools take
            yield from _managed(entry)
    elif isinstance(entry, UnityCatalogTool):
        yield DatabricksFunction(entry.function)
        if entry.credentials == "agent":
            yield DatabricksSQLWarehouse(entry.warehouse)
    elif entry.credentials == "user":
        return
    elif isinstance(entry, GenieTool):
        yield DatabricksGenieSpace(entry.space)
    else:
        yield DatabricksServingEndpoint(entry.endpoint)


def _managed(entry: McpTools) -> Iterator[Resource]:
    """What a managed MCP server stands for; of a whole schema, the tools that the configuration names."""
    found = _MANAGED.fullmatch(entry.url or "")
    if found is None:
        return
    kind, parts = found["kind"], found["rest"].split("/")
    if kind == "genie":
        yield DatabricksGenieSpace(parts[0])
    elif kind == "external":
        yield DatabricksUCConnection(parts[0])
    elif kind in ("functions", "vector-search"):
        names = [".".join(parts)] if len(parts) == 3 else [name.replace("__", ".") for name in entry.tools or ()]
        yield from map(DatabricksFunction if kind == "functions" else DatabricksVectorSearchIndex, names)


def _scopes(entry: ToolConfig) -> tuple[str, ...]:
    if isinstance(entry, McpTools):
        found = _MANAGED.fullmatch(entry.url or "") if entry.who == "user" else None
        return (_MCP_SCOPES[found["kind"]],) if found and found["kind"] in _MCP_SCOPES else ()
    if entry.credentials == "agent":
        return ()
    if isinstance(entry, UnityCatalogTool):
        return ("sql.statement-execution", "sql.warehouses")
    return ("serving.serving-endpoints",) if isinstance(entry, ServingEndpointTool) else ("dashboards.genie",)
