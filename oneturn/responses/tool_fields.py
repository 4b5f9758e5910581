"""The request's fields about tools of the client: ``tools`` and ``tool_choice``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from oneturn.core.client_tools import ClientTool, ClientTools
from oneturn.errors import RequestError
from oneturn.responses.tool_items import SERVER_LABEL
from oneturn.responses.tool_schema import MAX_SIZE, TOO_LARGE, arguments_schema, one_line

AGENT_TOOLS = {"type": "mcp", "server_label": SERVER_LABEL}
"""The tools that the agent has already, as a hosted MCP server; openai-agents looks up there who asks for approval."""

MAX_TOOLS = 128
"""How many tools of its own a client may offer."""

_Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionTool(BaseModel):
    """A tool of the client, which runs it itself."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    name: _Name
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, Field(description="The JSON schema of its arguments.")] = None
    strict: StrictBool | None = None

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        """Read the nested form of chat completions."""
        if isinstance(value, Mapping) and isinstance(nested := value.get("function"), Mapping):
            return {**nested, **{name: inner for name, inner in value.items() if name != "function"}}
        return value


class AgentTools(BaseModel):
    """The agent's own tools, which it has in any case."""

    type: Literal["mcp"]
    server_label: str

    @model_validator(mode="before")
    @classmethod
    def _own(cls, value: Any) -> Any:
        if {name: inner for name, inner in value.items() if inner is not None} != AGENT_TOOLS:
            raise ValueError("the agent has its own tools, listed at /agent/info, and takes no MCP server")
        return value


RequestTool = Annotated[FunctionTool | AgentTools, Field(discriminator="type")]
Mode = Literal["none", "auto", "required"]


class NamedTool(BaseModel):
    """A tool of the client by its name."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    name: _Name

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        """Read the nested form of chat completions."""
        if isinstance(value, Mapping) and isinstance(nested := value.get("function"), Mapping):
            return {**nested, **{name: inner for name, inner in value.items() if name != "function"}}
        return value


class AllowedTools(BaseModel):
    """Some of the client's tools."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["allowed_tools"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]
    mode: Mode = "auto"


ToolChoice = Mode | Annotated[NamedTool | AllowedTools, Field(discriminator="type")]


def client_tools(tools: Iterable[FunctionTool | AgentTools], choice: ToolChoice | None) -> ClientTools:
    """Return the tools that the LM may call, and whether it has to.

    Args:
        tools: the tools of the request.
        choice: its ``tool_choice``, which is about these tools; the agent's own aren't its concern.

    Raises:
        RequestError: two tools have the same name, a tool's parameters aren't the JSON schema of an object, or the
            choice names a tool that the request doesn't offer.
    """
    offered: dict[str, ClientTool] = {}
    size = 0
    for tool in tools:
        if isinstance(tool, AgentTools):
            continue
        if tool.name in offered:
            raise RequestError(f"tools has two tools named {tool.name!r}; rename one of them.", "tools")
        try:
            parameters, added = arguments_schema(tool.parameters or {})
        except ValueError as error:
            raise RequestError(f"The parameters of the tool {tool.name!r} {error}.", "tools") from error
        size += added
        if size > MAX_SIZE:
            raise RequestError(f"The parameters of all tools {TOO_LARGE}.", "tools")
        offered[tool.name] = ClientTool(tool.name, one_line(tool.description), parameters)
    names, mode = _chosen(choice, offered)
    return ClientTools({} if mode == "none" else {name: offered[name] for name in names}, mode == "required")


def echoed_tools(tools: Iterable[FunctionTool | AgentTools]) -> list[dict[str, Any]]:
    """Return the tools of the client as a response repeats them."""
    return [tool.model_dump() for tool in tools if isinstance(tool, FunctionTool)]


def echoed_choice(choice: ToolChoice) -> Any:
    """Return the choice as a response repeats it."""
    return choice if isinstance(choice, str) else choice.model_dump()


def _chosen(choice: ToolChoice | None, offered: Mapping[str, ClientTool]) -> tuple[Sequence[str], Mode]:
    named: Sequence[str] = list(offered)
    mode: Mode = "required"
    if choice is None or isinstance(choice, str):
        mode = choice or "auto"
    elif isinstance(choice, NamedTool):
        named = [choice.name]
    else:
        named, mode = list(dict.fromkeys(tool.name for tool in choice.tools)), choice.mode
    if unknown := [name for name in named if name not in offered]:
        raise RequestError(f"tool_choice names {unknown[0]!r}, which isn't a function in tools.", "tool_choice")
    if mode == "required" and not named:
        raise RequestError("tool_choice is 'required', and tools has no function that could be called.", "tool_choice")
    return named, mode
