"""Configuration of external tools: the ``kind`` of an entry determines its keys."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from oneturn.config.base import Address, Count, Section
from oneturn.core.databricks_auth import Who


def _tool_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(f"should be at most 64 letters, digits and underscores, not {name!r}")
    return name


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("should be the name of an environment variable, not its value")
    return name


def _full_name(name: str) -> str:
    if not re.fullmatch(r"[^.`/]+\.[^.`/]+\.[^.`/]+", name):
        raise ValueError(f"should be <catalog>.<schema>.<name>, not {name!r}")
    return name


ToolName = Annotated[str, AfterValidator(_tool_name)]
Variable = Annotated[str, AfterValidator(_variable)]


class ToolEntry(Section):
    """Options of every external tool."""

    description: str | None = None
    """The tool's description for the LM; null for the description at the source."""
    approval: bool = False
    """Require a person's approval for each call."""
    timeout: Annotated[float, Field(gt=0)] | None = 120.0
    """Time limit of a call in seconds; null for no limit."""
    max_chars: Count = 50_000
    """The maximum length of the output in characters; a longer one is cut and says so."""


class UnityCatalogTool(ToolEntry):
    """A Unity Catalog function, run on a SQL warehouse."""

    kind: Literal["unity_catalog"]
    """The kind of tool."""
    function: Annotated[str, AfterValidator(_full_name)]
    """The function, `<catalog>.<schema>.<name>`."""
    warehouse: str
    """The id of the SQL warehouse that runs it."""
    name: ToolName | None = None
    """The tool's name for the LM; null for the function's name."""
    rows: Count = 100
    """The maximum number of table rows returned to the LM."""
    credentials: Who = "agent"
    """The agent's own credentials, or those of the calling `user`."""


class McpTools(ToolEntry):
    """The tools of an MCP server: a command to start, or a URL."""

    kind: Literal["mcp"]
    """The kind of tool."""
    command: str | None = None
    """The server's command, for communication over stdio."""
    args: list[str] = []
    """The command's arguments."""
    env: list[Variable] = []
    """Names of environment variables passed to the command, in addition to the default ones such as `PATH`."""
    url: Address | None = None
    """The server's URL (streamable HTTP); a path that starts with `/` is relative to the Databricks workspace."""
    headers: dict[str, Variable] = {}
    """HTTP headers by name, each with the environment variable that holds the header's full value."""
    tools: list[str] | None = None
    """Names of the server's tools to use; null for all."""
    name: ToolName | None = None
    """The tool's name for the LM if `tools` has one entry, else a prefix of all names; null for the server's names."""
    credentials: Who | None = None
    """Workspace credentials sent to the server: the agent's own, or those of the calling `user`; null for the agent's
    if `url` starts with `/`, and none otherwise."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("set either command or url")
        if self.command is not None and (self.headers or self.credentials):
            raise ValueError("headers and credentials need a url; pass environment variables to a command with env")
        if self.url is not None and (self.args or self.env):
            raise ValueError("args and env need a command, not a url")
        if self.url is not None and not re.match(r"/\w|https?://[^/\s@]+(/|$)", self.url):
            raise ValueError(
                "url should start with http://, https:// or (in the workspace) /, and contain no credentials"
            )
        if self.description is not None and len(self.tools or []) != 1:
            raise ValueError("a description applies to one tool; name the tool in tools")
        return self

    @property
    def who(self) -> Who | None:
        """Whose workspace credentials are sent; ``None`` for none."""
        in_workspace = self.url is not None and self.url.startswith("/")
        return self.credentials or ("agent" if in_workspace else None)


class GenieTool(ToolEntry):
    """A Genie space: questions about tables, answered with SQL and its result."""

    kind: Literal["genie"]
    """The kind of tool."""
    space: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """The space's id."""
    name: ToolName = "ask_genie"
    """The tool's name for the LM."""
    rows: Count = 50
    """The maximum number of result rows returned to the LM."""
    credentials: Who = "agent"
    """The agent's own credentials, or those of the calling `user`."""


class ServingEndpointTool(ToolEntry):
    """A serving endpoint of the workspace: another agent, or a chat model."""

    kind: Literal["serving_endpoint"]
    """The kind of tool."""
    endpoint: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """The endpoint's name."""
    task: Literal["responses", "chat"] = "responses"
    """The endpoint's protocol: Responses, or chat completions."""
    name: ToolName | None = None
    """The tool's name for the LM; null for the endpoint's name."""
    credentials: Who = "agent"
    """The agent's own credentials, or those of the calling `user`."""

    @model_validator(mode="after")
    def _described(self) -> Self:
        if self.description is None:
            raise ValueError("an endpoint has no description of its own; add a description of when to call it")
        return self


ToolConfig = Annotated[UnityCatalogTool | McpTools | GenieTool | ServingEndpointTool, Field(discriminator="kind")]
