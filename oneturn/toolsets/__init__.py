"""Tools from elsewhere, as a configuration declares them: Unity Catalog, MCP servers, Genie, serving endpoints."""

from oneturn.toolsets.agent import agent_tool
from oneturn.toolsets.endpoint import endpoint_tool
from oneturn.toolsets.factory import tool_resources, tool_scopes, tools_of

__all__ = ["agent_tool", "endpoint_tool", "tool_resources", "tool_scopes", "tools_of"]
