"""The MCP servers that a configuration names: whether they start or answer, and offer what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from oneturn.config.tools import McpTools, ToolConfig
from oneturn.doctor.finding import Finding, ok, problem
from oneturn.elsewhere.mcp_server import mcp_tools
from oneturn.errors import OneTurnError


def servers(entries: Iterable[ToolConfig]) -> Iterator[Finding]:
    """Ask each server what it offers."""
    for entry in entries:
        if isinstance(entry, McpTools):
            yield _server(entry)


def _server(entry: McpTools) -> Finding:
    subject = f"MCP server {entry.command or entry.url}"
    try:
        tools = mcp_tools(entry)
    except OneTurnError as error:
        return problem(subject, str(error), "")
    return ok(subject, f"offers {', '.join(str(tool.name) for tool in tools)}")
