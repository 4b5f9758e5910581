"""``endpoint_tool``: an agent behind a Responses endpoint as a tool of another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import dspy
from dspy.adapters.utils import serialize_for_json
from dspy.signatures.signature import ensure_signature
from mlflow.entities import Document
from pydantic import BaseModel

from oneturn.config.tools import ServingEndpointTool
from oneturn.core.background import run_in_thread
from oneturn.core.databricks_auth import as_tool_error, client_factory
from oneturn.core.run_context import report
from oneturn.core.usage import Spend
from oneturn.errors import EndpointError, ProgramError, ToolError
from oneturn.programs.react.grounding import citing_fields
from oneturn.programs.signature import answer_field_of
from oneturn.responses.client import query
from oneturn.responses.reply import Event, OnEvent, Reply
from oneturn.responses.request import question_field
from oneturn.tools.decorator import tool
from oneturn.tools.documents import SourcedText
from oneturn.toolsets._nested_run import (
    QUESTION,
    Argument,
    answer_text,
    check_declared,
    declared,
    describe_call,
    describe_work,
    nested,
    of_model,
    of_signature,
)
from oneturn.toolsets.json_schema import foreign_tool

_QUESTION = "question"
_SILENCE = 300.0  # seconds to wait for the next byte where no timeout is set

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
    """Make a served agent a tool of another: a oneturn server, Model Serving, anything that speaks Responses.

    The LM that calls it reads the answer's text; the answer's annotations are sources that can be cited again. The
    tools that the agent calls are told as the tool's progress, its tokens count as the outer run's. However it fails,
    the outer LM reads one short line. Nothing is called before the tool is.

    Args:
        url: where it is served, as :func:`oneturn.query` takes it.
        name: what the outer LM calls it by.
        description: what it does and when to ask it, for the outer LM.
        inputs: what it takes. Not said: a ``question``. A pydantic model: a ``question``, and the model's fields as
            ``custom_inputs``. A signature: its inputs, the first ``str`` one being the question; then the outer LM
            reads the signature's other outputs too, from ``custom_outputs``.
        api_key_env: the environment variable that holds the token, read at each call; not said:
            the workspace's credentials on Databricks, as :func:`oneturn.query` finds them, and none elsewhere.
        timeout: seconds that it may take; then the connection is closed and it has failed. ``None`` for no limit but
            the outer run's.
        on_event: told of each Responses event, a dict, in the thread of the tool call.

    Raises:
        ProgramError: the url, the name, the inputs or the timeout can't be used.
    """
    check_declared(name, timeout)
    _check_url(name, url)
    form = _form(name, inputs)

    def answered(given: dict[str, Any], spend: Spend) -> SourcedText:
        question, custom_inputs = form.sent(given)
        key = api_key() if api_key is not None else _key(api_key_env)

        def call(tell: Callable[[Event], None]) -> Reply:
            return query(
                url,
                question,
                custom_inputs=custom_inputs,
                api_key=key,
                on_event=lambda event: tell(event) if on_event is not None or _tells(event) else None,
                timeout=timeout or _SILENCE,
            )

        try:
            reply = run_in_thread(call, _hearing(on_event))
        except EndpointError as error:
            raise _without(key, error) from None
        _count(spend, name, reply)
        return form.told(reply)

    def ask(given: dict[str, Any]) -> SourcedText:
        return nested(name, timeout, lambda spend: answered(given, spend))

    return declared(ask, name, description, form.arguments)


@dataclass(frozen=True)
class _Form:
    """What an endpoint takes and gives.

    Attributes:
        arguments: the tool's.
        question: the one that is the question; the others are ``custom_inputs``.
        model: what validates the ``custom_inputs``, if anything does.
        answer: what the text is called; ``None`` if there is no text.
        outputs: the ``custom_outputs`` that the LM reads.
    """

    arguments: Mapping[str, Argument]
    question: str | None = _QUESTION
    model: type[BaseModel] | None = None
    answer: str | None = "answer"
    outputs: tuple[str, ...] = ()

    def sent(self, given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The question and the ``custom_inputs`` of a call."""
        rest = {name: value for name, value in given.items() if name != self.question}
        if self.model is not None:
            rest = self.model.model_validate(rest, by_name=True).model_dump(mode="json", by_alias=True)
        question = None if self.question is None else str(given[self.question])
        return question, {name: serialize_for_json(value) for name, value in rest.items()}

    def told(self, reply: Reply) -> SourcedText:
        """A reply as the outer LM reads it."""
        outputs = {name: reply.custom_outputs[name] for name in self.outputs if name in reply.custom_outputs}
        if self.answer is None and outputs:
            return answer_text(outputs, None, _sources(reply))
        answer = self.answer or "answer"
        return answer_text({answer: _text(reply), **outputs}, answer, _sources(reply))


def _form(name: str, inputs: Inputs | None) -> _Form:
    if inputs is None:
        return _Form({_QUESTION: QUESTION})
    if not isinstance(inputs, str) and not (isinstance(inputs, type) and issubclass(inputs, BaseModel)):
        raise ProgramError(f"The inputs of {name!r} are neither a signature nor a pydantic model: {inputs!r:.80}.")
    if isinstance(inputs, str) or issubclass(inputs, dspy.Signature):
        return _form_of(name, inputs)
    fields = of_model(inputs)
    if _QUESTION in fields:
        raise ProgramError(f"{inputs.__name__} of {name!r} has a field {_QUESTION!r}, which the tool adds itself.")
    return _Form({_QUESTION: QUESTION, **fields}, model=inputs)


def _form_of(name: str, given: str | type[dspy.Signature]) -> _Form:
    try:
        signature = ensure_signature(given)
    except ValueError as error:
        raise ProgramError(f"The inputs of {name!r} can't be read as a signature: {error}.") from error
    answer = answer_field_of(signature)
    told = tuple(field for field in signature.output_fields if field not in (answer, *citing_fields(signature)))
    return _Form(of_signature(signature), question_field(signature), answer=answer, outputs=told)


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProgramError(f"The url of {name!r} is no address of an endpoint; give one such as http://127.0.0.1:8000.")
    if parts.username or parts.password:
        raise ProgramError(
            f"The url of {name!r} holds credentials. Name the token's variable with api_key_env instead."
        )


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if key := os.environ.get(variable):
        return key
    raise EndpointError(f"{variable} isn't set; it should hold the endpoint's token.", "no_token", 401)


def _without(key: str | None, error: EndpointError) -> EndpointError:
    """The error, in which the server may have repeated the token, without it."""
    message = str(error).replace(key, "…") if key else str(error)
    return EndpointError(message, error.code, error.status)


def _tells(event: Event) -> bool:
    kind = str(event.get("type"))
    return kind.startswith("response.output_item.") or kind == "response.in_progress"


def _hearing(on_event: OnEvent | None) -> OnEvent:
    """What hears the events: each tool call is told once, when it is whole."""

    def hear(event: Event) -> None:
        if on_event is not None:
            on_event(event)
        item = event.get("item") or {}
        work = event.get("progress") or {}
        if event.get("type") == "response.output_item.done":
            called = str(item.get("type")).endswith("_call")
            report(describe_call(str(item.get("name") or item["type"]), _arguments(item)) if called else "", item=item)
        elif work.get("message") or work.get("item"):
            message = describe_work(str(work.get("name")), str(work["message"])) if work.get("message") else ""
            report(message, work.get("fraction"), work.get("item"))

    return hear


def _arguments(item: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(item.get("arguments") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _count(spend: Spend, name: str, reply: Reply) -> None:
    """Count the endpoint's tokens, as one call of an LM: it doesn't tell how many there were."""
    read, written = (int(reply.usage.get(key) or 0) for key in ("input_tokens", "output_tokens"))
    if read or written:
        tokens = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        spend.add_usage(f"endpoint/{name}", tokens)


def _text(reply: Reply) -> str:
    parts = [part for item in reply.output if item.get("type") == "message" for part in item.get("content") or []]
    if not reply.text and any(part.get("type") == "refusal" for part in parts):
        raise ToolError("the agent refused to answer; do without it, or ask it otherwise")
    return reply.text


def _sources(reply: Reply) -> list[Document]:
    """What the answer cites, by address: an id that the outer agent can cite."""
    titles = {source.url: source.title for source in reply.sources if source.url}
    return [Document(title, {"title": title, "doc_uri": url}, url) for url, title in titles.items()]


_SERVING_ENDPOINT_QUESTION = {"type": "string", "description": "The question, to be understood on its own."}
_SCHEMA = {"type": "object", "properties": {"question": _SERVING_ENDPOINT_QUESTION}, "required": ["question"]}


def serving_endpoint_tool(entry: ServingEndpointTool) -> dspy.Tool:
    """The tool of an endpoint; nothing is asked before the tool is called.

    Raises:
        ConfigError: the extra isn't installed.
    """
    return _chat_tool(entry) if entry.task == "chat" else _agent_tool(entry)


def _agent_tool(entry: ServingEndpointTool) -> dspy.Tool:
    clients = client_factory(entry.credentials)

    def token() -> str:
        return str(clients().config.authenticate()["Authorization"].removeprefix("Bearer "))

    url = f"{clients().config.host}/serving-endpoints/{entry.endpoint}"
    name, description = entry.name or entry.endpoint, entry.description or ""
    made = endpoint_tool(url, name, description, api_key=token, timeout=entry.timeout)
    guarded = tool(made.func, approval=entry.approval)
    return dspy.Tool(guarded.func, name, description, made.args, made.arg_types)


def _chat_tool(entry: ServingEndpointTool) -> dspy.Tool:
    clients, name = client_factory(entry.credentials), entry.name or entry.endpoint

    def call(given: dict[str, Any]) -> str:
        return nested(
            name, None, lambda spend: run_in_thread(lambda tell: ask(given["question"], spend), lambda told: None)
        )

    def ask(question: str, spend: Spend) -> str:
        from databricks.sdk.service.serving import ChatMessage, ChatMessageRole

        with as_tool_error():
            said = [ChatMessage(content=question, role=ChatMessageRole.USER)]
            response = clients().serving_endpoints.query(entry.endpoint, messages=said)
        if usage := response.usage:
            read, written = usage.prompt_tokens or 0, usage.completion_tokens or 0
            tokens = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            spend.add_usage(f"endpoint/{name}", tokens)
        answers = [choice.message.content for choice in response.choices or [] if choice.message]
        if not answers or not answers[0]:
            raise ToolError("the model gave no answer; do without it, or ask it otherwise")
        return answers[0]

    return foreign_tool(call, name, entry.description or "", _SCHEMA, entry)
