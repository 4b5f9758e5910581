"""A real MCP server of the official SDK: over stdio, or on the port that it is given."""

import os
import sys

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("shop")


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def find(word: str, limit: int | None = None) -> dict[str, object]:
    """Find things."""
    return {"word": word, "limit": limit}


@server.tool()
def variable(name: str) -> str:
    """The value of an environment variable."""
    return os.environ.get(name, "not set")


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ToolError(f"no such order: {reason}")


@server.tool()
def end() -> str:
    """End the server in the middle of a call."""
    os._exit(3)


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Count, telling how far."""
    for number in range(to):
        await ctx.report_progress(number + 1, to, f"at {number + 1}")
    return "done"


@server.tool()
async def wait(ctx: Context) -> str:
    """Wait for ever, and say so in a file when it is over."""
    try:
        await ctx.report_progress(0, message="waiting")
        await anyio.sleep_forever()
    finally:
        with open(os.environ["ENDED"], "w") as file:
            file.write("cancelled")
    return "never"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run()
