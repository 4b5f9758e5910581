"""Tools from elsewhere, as a configuration declares them: each entry's ``kind`` says which keys it has."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from oneturn.config.base import Count, Section
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
    """What every tool from elsewhere may have."""

    description: str | None = None
    """What the LM reads of it; null for what its maker says."""
    approval: bool = False
    """Ask a person before each call."""
    timeout: Annotated[float, Field(gt=0)] | None = 120.0
    """Seconds that a call may take; null for no limit."""


class UnityCatalogTool(ToolEntry):
    """A function of Unity Catalog, run on a SQL warehouse."""

    kind: Literal["unity_catalog"]
    """What it is."""
    function: Annotated[str, AfterValidator(_full_name)]
    """The function, `<catalog>.<schema>.<name>`."""
    warehouse: str
    """The id of the SQL warehouse that runs it."""
    name: ToolName | None = None
    """What the LM calls it by; null for the function's own name."""
    rows: Count = 100
    """Rows of a table that the LM reads at most."""
    credentials: Who = "agent"
    """Whose: the agent's own, or of the `user` who asks."""


class McpTools(ToolEntry):
    """The tools of an MCP server: a program that is started, or an address."""

    kind: Literal["mcp"]
    """What it is."""
    command: str | None = None
    """The program that is the server, spoken to over its standard input and output."""
    args: list[str] = []
    """The program's arguments."""
    env: list[Variable] = []
    """The names of the environment variables that the program gets, besides the usual ones such as `PATH`."""
    url: str | None = None
    """The server's address (streamable HTTP); one that begins with `/` is of the Databricks workspace."""
    headers: dict[str, Variable] = {}
    """Headers of each request, by name: the environment variable that holds the header's whole value."""
    tools: list[str] | None = None
    """Which of its tools the agent gets; null for all."""
    name: ToolName | None = None
    """What the LM calls it by, where `tools` names one; else what all names begin with. null for the server's names."""
    credentials: Who | None = None
    """Whose credentials of the workspace are sent to a server of it: the agent's own, or of the `user` who asks; null
    for the agent's to a `url` that begins with `/`, and none to any other."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either a command or a url")
        if self.command is not None and (self.headers or self.credentials):
            raise ValueError("headers and credentials are for a url; a command gets environment variables in env")
        if self.url is not None and (self.args or self.env):
            raise ValueError("args and env are for a command, and this is a url")
        if self.url is not None and not re.match(r"/\w|https?://[^/\s@]+(/|$)", self.url):
            raise ValueError("the url should begin with http://, https:// or, in the workspace, /; without credentials")
        if self.description is not None and len(self.tools or []) != 1:
            raise ValueError("a description is for one tool: name it in tools")
        return self

    @property
    def who(self) -> Who | None:
        """Whose credentials of the workspace are sent."""
        own = self.url is not None and self.url.startswith("/")
        return self.credentials or ("agent" if own else None)


class GenieTool(ToolEntry):
    """A Genie space: questions about tables, answered with SQL and its result."""

    kind: Literal["genie"]
    """What it is."""
    space: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """The space's id."""
    name: ToolName = "ask_genie"
    """What the LM calls it by."""
    rows: Count = 50
    """Rows of a result that the LM reads at most."""
    credentials: Who = "agent"
    """Whose: the agent's own, or of the `user` who asks."""


class ServingEndpointTool(ToolEntry):
    """A serving endpoint of the workspace: another agent, or a chat model."""

    kind: Literal["serving_endpoint"]
    """What it is."""
    endpoint: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """The endpoint's name."""
    task: Literal["responses", "chat"] = "responses"
    """How it is spoken to: an agent of the Responses protocol, or chat completions."""
    name: ToolName | None = None
    """What the LM calls it by; null for the endpoint's name."""
    credentials: Who = "agent"
    """Whose: the agent's own, or of the `user` who asks."""

    @model_validator(mode="after")
    def _described(self) -> Self:
        if self.description is None:
            raise ValueError("an endpoint says nothing of itself: add a description of when to ask it")
        return self


ToolConfig = Annotated[UnityCatalogTool | McpTools | GenieTool | ServingEndpointTool, Field(discriminator="kind")]
