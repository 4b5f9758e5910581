"""Build the tools that a configuration names, and list the resources and scopes that they need."""

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
    """Return the tools of the configuration's list ``tools``, in order, to pass to your module with your own tools.

    The schemas of Unity Catalog functions and MCP servers are requested immediately.

    Raises:
        ConfigError: an extra isn't installed, or a server or function doesn't exist or can't be reached.
        ProgramError: a tool's name is invalid.
    """
    return [tool for entry in config.tools for tool in _build(entry)]


def tool_resources(entries: Iterable[ToolConfig]) -> list[Resource]:
    """Return the resources that the tools use with the agent's credentials, for ``log_model(auth_policy=…)``."""
    return [resource for entry in entries for resource in _resources(entry)]


def tool_scopes(entries: Iterable[ToolConfig]) -> list[str]:
    """Return the API scopes that a user's token needs for tools with user credentials; sorted, without duplicates."""
    return sorted({scope for entry in entries for scope in _scopes(entry)})


def _build(entry: ToolConfig) -> list[dspy.Tool]:
    if isinstance(entry, McpTools):
        return mcp_tools(entry)
    if isinstance(entry, UnityCatalogTool):
        return [unity_catalog_tool(entry)]
    return [genie_tool(entry) if isinstance(entry, GenieTool) else serving_endpoint_tool(entry)]


def _resources(entry: ToolConfig) -> Iterator[Resource]:
    if isinstance(entry, McpTools):
        if entry.who is not None:  # also with user credentials: the agent itself requests the tools' schemas
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
    """Yield the resources behind a managed MCP server; for a whole schema, those of the configured tools."""
    match = _MANAGED.fullmatch(entry.url or "")
    if match is None:
        return
    kind, parts = match["kind"], match["rest"].split("/")
    if kind == "genie":
        yield DatabricksGenieSpace(parts[0])
    elif kind == "external":
        yield DatabricksUCConnection(parts[0])
    elif kind in ("functions", "vector-search"):
        prefix = "__".join(parts) + "__"
        tools = [f"{'.'.join(parts)}.{name.removeprefix(prefix)}" for name in entry.tools or ()]
        names = [".".join(parts)] if len(parts) == 3 else tools
        yield from map(DatabricksFunction if kind == "functions" else DatabricksVectorSearchIndex, names)


def _scopes(entry: ToolConfig) -> tuple[str, ...]:
    if isinstance(entry, McpTools):
        match = _MANAGED.fullmatch(entry.url or "") if entry.who == "user" else None
        return (_MCP_SCOPES[match["kind"]],) if match and match["kind"] in _MCP_SCOPES else ()
    if entry.credentials == "agent":
        return ()
    if isinstance(entry, UnityCatalogTool):
        return ("sql.statement-execution", "sql.warehouses")
    return ("serving.serving-endpoints",) if isinstance(entry, ServingEndpointTool) else ("dashboards.genie",)
