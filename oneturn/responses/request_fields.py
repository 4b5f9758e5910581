"""The fields of a request: each one is honoured, or refused by name.

MLflow's request type drops fields that it doesn't know without an error. So a server reads the body here first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from mlflow.types.responses import ResponsesAgentRequest
from pydantic import Field, StrictBool, ValidationError, model_validator

from oneturn.core.client_tools import ClientTools
from oneturn.core.run_context import LMSettings
from oneturn.core.validation import problems_of
from oneturn.errors import RequestError
from oneturn.responses.call_items import MLFLOW_CALLS, to_mlflow_items, without_foreign_calls
from oneturn.responses.request import to_mlflow_request
from oneturn.responses.tool_fields import (
    MAX_TOOLS,
    FunctionTool,
    RequestTool,
    ToolChoice,
    client_tools,
    echoed_choice,
    echoed_tools,
)
from oneturn.responses.trace_fields import StrictFields, TraceFields

_AI_SDK = "with the AI SDK, set providerOptions.openai.store to false"
_SEND_ITEMS = "send the items of the earlier turns in input"

ACCEPTED_VALUES: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "background": ((False,), "send background: false, and stream: true for a long run"),
    "context_management": ((), "leave it out"),
    "conversation": ((), f"{_SEND_ITEMS}; context.conversation_id names the session of the trace"),
    "frequency_penalty": ((0,), "leave it out"),
    "presence_penalty": ((0,), "leave it out"),
    "previous_response_id": ((), _SEND_ITEMS),
    "prompt": ((), "send the prompt's text in input"),
    "reasoning": (({},), "leave it out: the agent's configuration sets the reasoning of its LM"),
    "service_tier": (("auto", "default"), "leave it out"),
    "store": ((False,), f"send store: false ({_AI_SDK}): nothing is stored, and earlier items come in input"),
    "top_logprobs": ((0,), "leave it out"),
    "truncation": (("auto", "disabled"), "send truncation: disabled"),
}
"""Fields of OpenAI's and Open Responses' requests of which only some values, and ``null``, are accepted; and what to
send instead of another value."""

_NOT_FIELDS = {
    "max_completion_tokens": "send max_output_tokens",
    "max_tokens": "send max_output_tokens",
    "messages": "send input",
    "response_format": "send text.format",
}
_TAGS = ("function", "mcp")  # of the types of tools, in the place of an error
_INCLUDABLE = ("reasoning.encrypted_content",)
_DROPPED = ("model", "include", "stream_options")  # for an agent that isn't a ResponsesAdapter
_SETTINGS = ("temperature", "top_p", "max_output_tokens", "max_tool_calls", "tools")
_ECHOED = (
    *("instructions", "max_tool_calls", "metadata", "user", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "temperature", "top_p", "max_output_tokens", "parallel_tool_calls"),
)
_MOST_METADATA = 1000


class TextFormat(StrictFields):
    """The format of the answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: StrictBool | None = None

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        """Read the nested form of chat completions, which Databricks' provider of the AI SDK sends."""
        if isinstance(value, Mapping) and isinstance(nested := value.get("json_schema"), Mapping):
            return {**nested, **{name: inner for name, inner in value.items() if name != "json_schema"}}
        return value


class TextSettings(StrictFields):
    """The settings of the answer's text."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class StreamOptions(StrictFields):
    """The options of a stream. Events are never padded."""

    include_obfuscation: Literal[False] | None = None


class RequestFields(TraceFields):
    """The fields of a request that are honoured."""

    input: Annotated[Any, Field(description="The question, or the items of a conversation.")]
    custom_inputs: Annotated[dict[str, Any] | None, Field(description="The agent's other inputs.")] = None
    model: Annotated[str | None, Field(description="Any name: one agent is served.")] = None
    stream: Annotated[StrictBool | None, Field(description="Whether to stream the response.")] = None
    stream_options: StreamOptions | None = None
    instructions: Annotated[str | None, Field(description="A system message before the other items.")] = None
    temperature: Annotated[float | None, Field(strict=True, ge=0, le=2, description="For each LM call.")] = None
    top_p: Annotated[float | None, Field(strict=True, ge=0, le=1, description="For each LM call.")] = None
    max_output_tokens: Annotated[int | None, Field(strict=True, ge=1, description="For the whole run.")] = None
    max_tool_calls: Annotated[int | None, Field(strict=True, ge=1, description="For the agent's own tools.")] = None
    tools: Annotated[list[RequestTool] | None, Field(max_length=MAX_TOOLS, description="Tools of the client.")] = None
    tool_choice: Annotated[ToolChoice | None, Field(description="Which of the client's tools to call.")] = None
    parallel_tool_calls: Annotated[StrictBool | None, Field(description="Several calls in one step.")] = None
    text: TextSettings | None = None
    metadata: Annotated[
        dict[str, str] | None, Field(max_length=_MOST_METADATA, description="Repeated in the response.")
    ] = None
    include: Annotated[list[str] | None, Field(max_length=100)] = None
    user: Annotated[str | None, Field(description="Repeated in the response.")] = None
    safety_identifier: Annotated[str | None, Field(description="Repeated in the response.")] = None
    prompt_cache_key: Annotated[str | None, Field(description="Repeated in the response.")] = None
    prompt_cache_retention: Annotated[str | None, Field(description="Repeated in the response.")] = None


@dataclass(frozen=True)
class RequestOptions:
    """What a request asks for besides its inputs.

    Attributes:
        instructions: the request's ``instructions``; they are also the first system message of its ``input``.
        lm: the settings of its LM calls.
        max_tool_calls: the number of calls of the agent's own tools that the run may make.
        parallel_tool_calls: whether the run may make several calls in one step.
        client_tools: the tools of the client that the LM may call.
        offered: the names of all tools that the request offers.
        text_format: the format of the answer; ``None`` for plain text.
        metadata: the response's ``metadata``.
        echo: the fields that a response repeats.
    """

    instructions: str | None = None
    lm: LMSettings = field(default_factory=LMSettings)
    max_tool_calls: int | None = None
    text_format: TextFormat | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    echo: Mapping[str, Any] = field(default_factory=dict)
    parallel_tool_calls: bool = True
    client_tools: ClientTools = field(default_factory=ClientTools)
    offered: frozenset[str] = frozenset()

    @property
    def settings(self) -> list[str]:
        """The names of the settings that the program has to support."""
        values = {**vars(self.lm), "max_tool_calls": self.max_tool_calls, "tools": self.offered or None}
        return [name for name in _SETTINGS if values[name] is not None]


def read_fields(body: Any) -> tuple[dict[str, Any], RequestOptions]:
    """Read the fields of a request.

    Args:
        body: the request's body.

    Returns:
        The fields of MLflow's request, with ``instructions`` as a system message; and what else was asked for.

    Raises:
        RequestError: a field is unknown, not supported or of the wrong type; ``param`` names it.
    """
    if not isinstance(body, Mapping):
        raise RequestError("The request's body must be a JSON object.")
    accepted = {name: value for name, value in body.items() if not _is_default(name, value)}
    echo = {"truncation": body["truncation"]} if body.get("truncation") is not None else {}
    try:
        fields = RequestFields.model_validate(accepted)
    except ValidationError as error:
        raise _refusal(error) from error
    for number, name in enumerate(fields.include or ()):
        if name not in _INCLUDABLE:
            raise RequestError(f"include has {name!r:.80}, which isn't supported; leave it out.", f"include[{number}]")
    items = _items(fields)
    text_format = fields.text.format if fields.text is not None else None
    lm = LMSettings(fields.temperature, fields.top_p, fields.max_output_tokens)
    tools = fields.tools or []
    options = RequestOptions(
        fields.instructions,
        lm,
        fields.max_tool_calls,
        None if text_format is None or text_format.type == "text" else text_format,
        fields.metadata or {},
        {**echo, **_echo(fields)},
        fields.parallel_tool_calls is not False,
        client_tools(tools, fields.tool_choice),
        frozenset(tool.name for tool in tools if isinstance(tool, FunctionTool)),
    )
    names = ("custom_inputs", "stream", "user", "metadata")
    request = {name: body[name] for name in names if body.get(name) is not None}
    return {**request, "context": fields.mlflow_context or None, "input": items}, options


def agent_request(body: Any) -> tuple[ResponsesAgentRequest, RequestOptions]:
    """Return the request for a ``ResponsesAgent`` that isn't a ``ResponsesAdapter``.

    Returns:
        The request; and the fields that a response repeats, with the names of the tools offered. The agent itself reads
        its settings from the request.

    Raises:
        RequestError: MLflow's request has no such field, or a value is invalid.
    """
    if not isinstance(body, Mapping):
        raise RequestError("The request's body must be a JSON object.")
    known = {*ResponsesAgentRequest.model_fields, *TraceFields.model_fields, *_DROPPED, "instructions"}
    for name, value in body.items():
        if name not in known and not _is_default(name, value):
            raise RequestError(f"This agent doesn't support {name}; leave it out.", name)
    try:
        trace = TraceFields.model_validate({name: body.get(name) for name in TraceFields.model_fields})
    except ValidationError as error:
        raise _refusal(error) from error
    instructions = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if isinstance(items, list):
        items = [*instructions, *to_mlflow_items(without_foreign_calls(items, MLFLOW_CALLS))]
    request = to_mlflow_request({**body, "context": trace.mlflow_context or None, "input": items})
    tools = [tool.model_dump() for tool in request.tools or () if tool.type == "function"]
    echo = {name: body[name] for name in (*_ECHOED, "truncation", "tool_choice") if body.get(name) is not None}
    if tools:
        names = ("type", "name", "description", "parameters", "strict")
        echo["tools"] = [{name: tool.get(name) for name in names} for tool in tools]
    if isinstance(request.text, Mapping) and isinstance(text_format := request.text.get("format"), Mapping):
        echo["text"] = {"format": _echoed_format(TextFormat.model_construct(**text_format))}
    return request, RequestOptions(echo=echo, offered=frozenset(tool["name"] for tool in tools))


def _is_default(name: str, value: Any) -> bool:
    """Whether a field that the agent doesn't support has a value that asks for nothing.

    Raises:
        RequestError: it asks for something.
    """
    if value is None and name not in RequestFields.model_fields:
        return True
    if name in _NOT_FIELDS:
        raise RequestError(f"{name} isn't a field of a Responses request: {_NOT_FIELDS[name]}.", name)
    if name not in ACCEPTED_VALUES:
        return False
    values, advice = ACCEPTED_VALUES[name]
    if isinstance(value, Mapping):
        value = {key: inner for key, inner in value.items() if inner is not None}
    if value is None or any(_is_same(value, known) for known in values):
        return True
    raise RequestError(f"This agent doesn't support {name} {value!r:.80}; {advice}.", name)


def _is_same(value: Any, known: Any) -> bool:
    return isinstance(value, bool) == isinstance(known, bool) and value == known


def _items(fields: RequestFields) -> list[Any]:
    """The items for MLflow's request, which is stricter than Open Responses."""
    first = [{"role": "system", "content": fields.instructions}] if fields.instructions else []
    if isinstance(fields.input, str):
        return [*first, {"role": "user", "content": fields.input}]
    if not isinstance(fields.input, list):
        raise RequestError(f"input is {fields.input!r:.80}; send a text or a list of items.", "input")
    for number, item in enumerate(fields.input):
        if isinstance(item, Mapping) and item.get("type") == "item_reference":
            raise RequestError(
                f"input.{number} is an item_reference, and nothing is stored; send the item itself, and store: false "
                f"({_AI_SDK}).",
                "input",
            )
    return [*first, *map(_with_id, without_foreign_calls(fields.input))]


def _with_id(item: Any) -> Any:
    """An assistant's message with the ``id`` that MLflow requires and the specification doesn't."""
    if isinstance(item, Mapping) and item.get("role") == "assistant" and isinstance(item.get("content"), list):
        return {"type": "message", **item, "id": item.get("id") or f"msg_{uuid.uuid4().hex}"}
    return item


def _echo(fields: RequestFields) -> dict[str, Any]:
    echo = {name: getattr(fields, name) for name in _ECHOED}
    if tools := echoed_tools(fields.tools or ()):
        echo["tools"] = tools
    if fields.tool_choice is not None:
        echo["tool_choice"] = echoed_choice(fields.tool_choice)
    if fields.text is not None and (text_format := fields.text.format) is not None:
        echo["text"] = {"format": _echoed_format(text_format)}
    return {name: value for name, value in echo.items() if value is not None}


def _echoed_format(text_format: TextFormat) -> dict[str, Any]:
    if text_format.type != "json_schema":
        return {"type": text_format.type}
    return {
        "type": "json_schema",
        "name": text_format.name or "outputs",
        "description": text_format.description,
        "schema": None,  # the specification's resource allows only null here
        "strict": bool(text_format.strict),
    }


def _refusal(error: ValidationError) -> RequestError:
    problem = problems_of(error)[0]
    path = [part for part in problem["loc"] if part not in _TAGS]
    if not path:
        return RequestError(f"The request: {problem['msg']}.")
    if path[0] == "tool_choice":
        path = path[:1]
    param = ".".join(map(str, path))
    if problem["type"] == "union_tag_invalid":
        return RequestError(
            f"{param} is of type {problem['input'].get('type')!r:.80}; only functions are taken.", param
        )
    if problem["type"] == "value_error":
        return RequestError(f"{param}: {problem['msg'].removeprefix('Value error, ')}.", str(path[0]))
    if problem["type"] == "extra_forbidden":
        return RequestError(f"This agent doesn't support the field {param!r:.80}; leave it out.", param)
    return RequestError(f"{param}: {problem['msg']}.", param)
