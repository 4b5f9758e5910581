"""An agent as a tool of another: one in this process, or one behind a Responses endpoint."""

from oneturn.agent_tools.agent import agent_tool
from oneturn.agent_tools.endpoint import endpoint_tool

__all__ = ["agent_tool", "endpoint_tool"]
