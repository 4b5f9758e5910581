"""Tools from elsewhere, as a configuration declares them: Unity Catalog, MCP servers, Genie, serving endpoints."""

from oneturn.elsewhere.tools import tool_resources, tool_scopes, tools_of

__all__ = ["tool_resources", "tool_scopes", "tools_of"]
