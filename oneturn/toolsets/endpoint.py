"""``endpoint_tool``: an agent behind a Responses endpoint as a tool of another agent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import dspy
from mlflow.entities import Document
from pydantic import BaseModel

from oneturn.config.tools import ServingEndpointTool
from oneturn.core._dspy import usage_dict
from oneturn.core.background import run_in_thread
from oneturn.core.databricks_auth import first_line, schema_credentials, workspace_client, workspace_token
from oneturn.core.run_context import report
from oneturn.core.serialization import jsonable
from oneturn.core.urls import with_scheme
from oneturn.core.usage import CallTracker
from oneturn.errors import EndpointError, ProgramError, ToolError
from oneturn.programs.react.grounding import citing_fields
from oneturn.programs.signature import answer_field_of
from oneturn.responses.call_items import FunctionCallEvents
from oneturn.responses.client import query
from oneturn.responses.event_stream import Event
from oneturn.responses.reply import OnEvent, Reply
from oneturn.responses.request import question_field
from oneturn.tools.decorator import tool
from oneturn.tools.registry import SourcedText
from oneturn.toolsets._nested_run import (
    QUESTION,
    Argument,
    answer_text,
    build_tool,
    describe_call,
    describe_progress,
    model_arguments,
    needs_approval,
    run_nested,
    signature_arguments,
    validate_tool,
)
from oneturn.toolsets.json_schema import QUESTION_SCHEMA, schema_tool

_QUESTION = "question"
_READ_TIMEOUT = 300.0  # seconds to wait for the next byte if no timeout is set

Inputs: TypeAlias = str | type[dspy.Signature] | type[BaseModel]


def endpoint_tool(
    url: str,
    name: str,
    description: str,
    *,
    inputs: Inputs | None = None,
    api_key_env: str | None = None,
    api_key: Callable[[], str] | None = None,
    timeout: float | None = None,
    on_event: OnEvent | None = None,
) -> dspy.Tool:
    """Return a served agent as a tool of another: a oneturn server, Model Serving or any other Responses endpoint.

    The outer LM reads the answer's text; it can cite the answer's annotations as sources. The agent's tool calls are
    reported as the tool's progress, and its tokens count towards the outer run's usage. Each failure is one short line
    for the outer LM. No request is sent before the tool is called.

    Args:
        url: the endpoint's URL, as in :func:`oneturn.query`.
        name: the tool's name.
        description: what the agent does and when to call it, for the outer LM.
        inputs: the agent's inputs. ``None``: a ``question``. A pydantic model: a ``question``, and the model's fields
            as ``custom_inputs``. A signature: its inputs, with the first ``str`` input as the question; the outer LM
            also reads the signature's other outputs, from ``custom_outputs``.
        api_key_env: the environment variable that holds the token, read at each call; ``None`` for the workspace's
            credentials on Databricks, resolved as in :func:`oneturn.query`, and for no token elsewhere.
        api_key: returns the token, called at each call; it takes precedence over ``api_key_env``.
        timeout: seconds until the connection is closed and the call fails; ``None`` for the outer run's limit only.
        on_event: called with each Responses event, a dict, in the thread of the tool call.

    Raises:
        ProgramError: the URL, the name, the inputs or the timeout is invalid.
    """
    validate_tool(name, timeout)
    _check_url(name, url)
    form = _form(name, inputs)

    def send(arguments: dict[str, Any], tracker: CallTracker) -> SourcedText:
        question, custom_inputs = form.to_request(arguments)
        key = api_key() if api_key is not None else _key(api_key_env)

        def run_query(emit: Callable[[Event], None]) -> Reply:
            return query(
                url,
                question,
                custom_inputs=custom_inputs,
                api_key=key,
                on_event=lambda event: emit(event) if on_event is not None or _is_progress(event) else None,
                timeout=timeout or _READ_TIMEOUT,
            )

        try:
            reply = run_in_thread(run_query, _progress_handler(on_event))
        except EndpointError as error:
            raise _redact_key(key, error) from None
        if reply.usage.tokens:  # counted as one LM call: the reply doesn't contain the number of calls
            tracker.add_usage(f"endpoint/{name}", replace(reply.usage, lm_calls=1).to_dspy())
        return form.to_text(reply)

    def call(arguments: dict[str, Any]) -> SourcedText:
        return run_nested(name, timeout, lambda tracker: send(arguments, tracker))

    return build_tool(call, name, description, form.arguments)


@dataclass(frozen=True)
class _Form:
    """The inputs and outputs of an endpoint.

    Attributes:
        arguments: the tool's arguments.
        question: the argument that is the question; the others are ``custom_inputs``.
        model: the pydantic model that validates the ``custom_inputs``, if any.
        answer: the name of the text output; ``None`` if there is none.
        outputs: the ``custom_outputs`` that the LM reads.
    """

    arguments: Mapping[str, Argument]
    question: str | None = _QUESTION
    model: type[BaseModel] | None = None
    answer: str | None = "answer"
    outputs: tuple[str, ...] = ()

    def to_request(self, arguments: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Return the question and the ``custom_inputs`` of a call."""
        rest = {name: value for name, value in arguments.items() if name != self.question}
        if self.model is not None:
            rest = self.model.model_validate(rest, by_name=True).model_dump(mode="json", by_alias=True)
        question = None if self.question is None else str(arguments[self.question])
        return question, {name: jsonable(value) for name, value in rest.items()}

    def to_text(self, reply: Reply) -> SourcedText:
        """Return a reply as text for the outer LM.

        Raises:
            ToolError: it isn't an answer.
        """
        if reply.approvals:
            raise needs_approval(reply.approvals[0].name)
        outputs = {name: reply.custom_outputs[name] for name in self.outputs if name in reply.custom_outputs}
        if self.answer is None and outputs:
            return answer_text(outputs, None, _sources(reply))
        answer, text = self.answer or "answer", _text(reply)
        if not text and not outputs:
            raise ToolError("the agent gave no answer; do without it, or rephrase the request")
        return answer_text({answer: text, **outputs}, answer, _sources(reply))


def _form(name: str, inputs: Inputs | None) -> _Form:
    if inputs is None:
        return _Form({_QUESTION: QUESTION})
    if not isinstance(inputs, str) and not (isinstance(inputs, type) and issubclass(inputs, BaseModel)):
        raise ProgramError(f"The inputs of {name!r} are neither a signature nor a pydantic model: {inputs!r:.80}.")
    if isinstance(inputs, str) or issubclass(inputs, dspy.Signature):
        return _signature_form(name, inputs)
    fields = model_arguments(inputs)
    if _QUESTION in fields:
        raise ProgramError(f"{inputs.__name__} of {name!r} has a field {_QUESTION!r}, which the tool adds itself.")
    return _Form({_QUESTION: QUESTION, **fields}, model=inputs)


def _signature_form(name: str, inputs: str | type[dspy.Signature]) -> _Form:
    try:
        signature = dspy.ensure_signature(inputs)
    except ValueError as error:
        raise ProgramError(f"The inputs of {name!r} can't be read as a signature: {error}.") from error
    answer = answer_field_of(signature)
    outputs = tuple(field for field in signature.output_fields if field not in (answer, *citing_fields(signature)))
    return _Form(signature_arguments(signature), question_field(signature), answer=answer, outputs=outputs)


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(with_scheme(url))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProgramError(f"The url of {name!r} isn't an HTTP URL; use one such as http://127.0.0.1:8000.")
    if parts.username or parts.password:
        raise ProgramError(
            f"The url of {name!r} contains credentials. Set api_key_env to the token's environment variable instead."
        )


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if key := os.environ.get(variable):
        return key
    raise EndpointError(f"{variable} isn't set; it should hold the endpoint's token.", "no_token", 401)


def _redact_key(key: str | None, error: EndpointError) -> EndpointError:
    """Remove the token from an error message, in which the server may have repeated it."""
    message = str(error).replace(key, "…") if key else str(error)
    return EndpointError(message, error.code, error.status, error.retry_after)


def _is_progress(event: Event) -> bool:
    kind = str(event.get("type"))
    return kind.startswith(("response.output_item.", "response.mcp_call_arguments.")) or kind == "response.in_progress"


def _progress_handler(on_event: OnEvent | None) -> OnEvent:
    """Return the event handler that reports progress. Each tool call is reported once, when its arguments are there."""
    calls = FunctionCallEvents()

    def handle(event: Event) -> None:
        if on_event is not None:
            on_event(event)
        for each in calls.read(event):
            report_event(each)

    def report_event(event: Event) -> None:
        item = event.get("item") or {}
        progress = event.get("progress") or {}
        if event.get("type") == "response.output_item.done":
            is_call = str(item.get("type")).endswith("_call")
            report(describe_call(str(item.get("name") or item["type"]), _arguments(item)) if is_call else "", item=item)
        elif progress.get("message") or progress.get("item"):
            message = progress.get("message")
            text = describe_progress(str(progress.get("name")), str(message)) if message else ""
            report(text, progress.get("fraction"), progress.get("item"))

    return handle


def _arguments(item: Mapping[str, Any]) -> dict[str, Any]:
    try:
        arguments = json.loads(item.get("arguments") or "{}")
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _text(reply: Reply) -> str:
    parts = [part for item in reply.output if item.get("type") == "message" for part in item.get("content") or []]
    if parts and all(part.get("type") == "refusal" for part in parts):
        raise ToolError("the agent refused to answer; do without it, or rephrase the request")
    return reply.text


def _sources(reply: Reply) -> list[Document]:
    """Return the answer's citations as documents. Their id is the URL, so the outer agent can cite them."""
    titles = {source.url: source.title for source in reply.sources if source.url}
    return [Document(title, {"title": title, "doc_uri": url}, url) for url, title in titles.items()]


def serving_endpoint_tool(entry: ServingEndpointTool) -> dspy.Tool:
    """Return the tool of a serving endpoint. No request is sent before the tool is called.

    Raises:
        ConfigError: the extra isn't installed.
    """
    return _chat_tool(entry) if entry.task == "chat" else _agent_tool(entry)


def _agent_tool(entry: ServingEndpointTool) -> dspy.Tool:
    def token() -> str:
        return workspace_token(entry.credentials)[1]

    url = f"{workspace_client(schema_credentials(entry.credentials)).config.host}/serving-endpoints/{entry.endpoint}"
    name, description = entry.name or entry.endpoint, entry.description or ""
    responses_tool = endpoint_tool(url, name, description, api_key=token, timeout=entry.timeout)
    guarded = tool(responses_tool.func, approval=entry.approval, max_chars=entry.max_chars)
    return dspy.Tool(guarded.func, name, description, responses_tool.args, responses_tool.arg_types)


_LONGEST_SECONDS = 600.0  # without a timeout of the tool: the longest wait for the first byte of an answer


def _chat_tool(entry: ServingEndpointTool) -> dspy.Tool:
    name = entry.name or entry.endpoint

    def call(arguments: dict[str, Any]) -> str:
        question = arguments["question"]
        return run_nested(
            name, None, lambda tracker: run_in_thread(lambda emit: send(question, tracker), lambda event: None)
        )

    def send(question: str, tracker: CallTracker) -> str:
        from dspy.lm15 import LM15Error, Message, Request, TextPart

        from oneturn.lm.databricks import EndpointEngine

        # The SDK's client would send a slow request again and again, and an agent would run its tools each time.
        engine = EndpointEngine(entry.endpoint, entry.credentials, entry.timeout or _LONGEST_SECONDS)
        request = Request(model=entry.endpoint, messages=(Message(role="user", parts=(TextPart(question),)),))
        try:
            response = engine.complete_unchanged(request)
        except LM15Error as error:
            raise ToolError(first_line(error) or type(error).__name__) from error
        tracker.add_usage(f"endpoint/{name}", usage_dict(response))
        if not response.text:
            raise ToolError("the model gave no answer; do without it, or rephrase the request")
        return str(response.text)

    return schema_tool(call, name, entry.description or "", QUESTION_SCHEMA, entry)
