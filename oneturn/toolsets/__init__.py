"""Tools that a configuration declares: Unity Catalog, MCP servers, Genie and serving endpoints; agents as tools."""

from oneturn.toolsets.agent import agent_tool
from oneturn.toolsets.endpoint import endpoint_tool
from oneturn.toolsets.factory import build_tools, tool_resources, tool_scopes

__all__ = ["agent_tool", "build_tools", "endpoint_tool", "tool_resources", "tool_scopes"]
