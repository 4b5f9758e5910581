"""Parse a request once: everything that a run of the program needs from it, or the reason to refuse it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.core.serialization import replace_surrogates_deep
from oneturn.core.steps import Resumption
from oneturn.errors import ProgramError, RequestError
from oneturn.programs import Program
from oneturn.responses.approval_items import read_answer, without_denials
from oneturn.responses.call_items import to_mlflow_items
from oneturn.responses.client_calls import has_outputs, read_again, read_outputs, without_state
from oneturn.responses.content import Item
from oneturn.responses.request import MESSAGES, SYSTEM, program_inputs, to_mlflow_request
from oneturn.responses.request_fields import RequestOptions, read_fields
from oneturn.responses.text_format import check_format
from oneturn.responses.turn_calls import OwnTools
from oneturn.responses.turns import turn_start
from oneturn.tools.approvals import Approvals, VerifiedApproval


@dataclass(frozen=True)
class ParsedRequest:
    """A request that can be run: :meth:`oneturn.ResponsesAdapter.parse` returns it.

    Attributes:
        request: the request, valid and in text that UTF-8 can encode; it has the ``context`` and ``custom_inputs``.
        items: the ``input`` items as dicts, without calls, results and thoughts of the turn that nothing proves.
        inputs: the program's inputs.
        options: what the request asks for besides.
        resumption: where to resume, with the person's decision or the outputs of the client's calls; ``None`` for a
            new run.
        approval: the verified approval of ``resumption``.
    """

    request: ResponsesAgentRequest
    items: tuple[Item, ...]
    inputs: Mapping[str, Any]
    options: RequestOptions = field(default_factory=RequestOptions)
    resumption: Resumption | None = None
    approval: VerifiedApproval | None = None


def parse_request(
    request: ResponsesAgentRequest,
    options: RequestOptions,
    program: Program,
    approvals: Approvals | None,
    key: Approvals,
) -> ParsedRequest:
    """Convert a valid request to the program's inputs, and to the state that a resumed run starts from.

    Args:
        request: the request, from :func:`read_request`.
        options: what it asks for besides its inputs.
        program: the program that will answer it.
        approvals: verifies the approval that the request may answer; it isn't recorded as used yet.
        key: verifies the results of own tools before a call of the client.

    Raises:
        RequestError: an input is missing, unknown or of the wrong type; the program doesn't support an option; an
            approval is malformed, forged or expired; or an output of the client answers no call.
        ProgramError: the request answers an approval, and there is no key to verify it.
    """
    _check_options(options, program)
    try:
        return _parse_items(request, options, program, approvals, key)
    except RequestError as error:
        error.param = error.param or "input"
        raise


def _parse_items(
    request: ResponsesAgentRequest,
    options: RequestOptions,
    program: Program,
    approvals: Approvals | None,
    key: Approvals,
) -> ParsedRequest:
    items = tuple(item.model_dump() for item in request.input)
    if len(kept := without_denials(items)) < len(items):
        items = tuple(items[index] for index in kept)
        request = request.model_copy(update={"input": [request.input[index] for index in kept]})
    own = OwnTools(program)

    def inputs_before(end: int) -> dict[str, Any]:
        return program_inputs(program.signature, _without_calls(request, items, end), program.answer_field)

    if takes_client_tools(program) and has_outputs(items, own):
        inputs = inputs_before(len(items))
        turn = read_outputs(items, inputs_before, own, key)
        return ParsedRequest(request, turn.items, inputs, options, turn.resumption)
    if read_answer(items, own) is None:
        inputs = program_inputs(program.signature, request, program.answer_field)
        return ParsedRequest(request, without_state(items), inputs, options)
    if not hasattr(program, "resume"):
        raise RequestError("This agent doesn't request approvals; end the input with a user message.")
    inputs = inputs_before(len(items))
    try:
        return _parse_approval(request, items, options, inputs, program, signer(approvals))
    except RequestError:
        asked = [item.get("id") for item in items].index(items[-1].get("approval_request_id"))
        reduced = read_again(items, asked, inputs_before, own, key)
        if reduced == items:
            raise
    return _parse_approval(request, reduced, options, inputs, program, signer(approvals))


def _parse_approval(
    request: ResponsesAgentRequest,
    items: tuple[Item, ...],
    options: RequestOptions,
    inputs: Mapping[str, Any],
    program: Program,
    approvals: Approvals,
) -> ParsedRequest:
    """Parse a request whose last item answers an approval request.

    Raises:
        RequestError: the approval is malformed, forged or expired.
    """
    answer = read_answer(items, OwnTools(program))
    assert answer is not None  # noqa: S101
    resumption, waiting = answer.resumption, answer.waiting
    approval = approvals.verify(
        answer.request_id, inputs, resumption.finished, waiting, tool_schema(program, waiting.name)
    )
    resumption = replace(resumption, sources_dropped=approval.sources_dropped)
    return ParsedRequest(request, items, inputs, options, resumption, approval)


def takes_client_tools(program: Program) -> bool:
    """Return whether a program can leave calls to the client, and resume when their outputs come."""
    return "tools" in getattr(program, "request_settings", ()) and hasattr(program, "resume")


def _without_calls(request: ResponsesAgentRequest, items: Sequence[Item], end: int) -> ResponsesAgentRequest:
    """The request up to an item, without the calls of the turn: its inputs are those of the run that is resumed."""
    start = turn_start(items)
    kept = [each for index, each in enumerate(request.input[:end]) if index < start or items[index].get("role")]
    return request.model_copy(update={"input": kept})


def _check_options(options: RequestOptions, program: Program) -> None:
    if options.instructions and not {SYSTEM, MESSAGES} & set(program.signature.input_fields):
        raise RequestError(
            f"This agent takes no instructions: its signature has no field {SYSTEM!r}. Leave instructions out.",
            "instructions",
        )
    supported = getattr(program, "request_settings", ())
    for name in options.settings:
        if name not in supported:
            raise RequestError(f"This agent doesn't support {name}; leave it out.", name)
    own = OwnTools(program) if options.offered else ()
    if taken := [name for name in sorted(options.offered) if name in own]:
        raise RequestError(f"The agent has a tool named {taken[0]!r} of its own, or nearly so; rename it.", "tools")
    if options.text_format is not None:
        check_format(options.text_format, program.signature)


def tool_schema(program: Program, name: str) -> Mapping[str, Any] | None:
    """Return the arguments of a program's tool as JSON schemas; ``None`` if the program has no tool of this name."""
    tools = getattr(program, "tools", None)
    tool = tools.get(name) if isinstance(tools, Mapping) else None
    return tool.args if isinstance(tool, dspy.Tool) else None


def signer(approvals: Approvals | None) -> Approvals:
    """Return ``approvals``.

    Raises:
        ProgramError: it is ``None``.
    """
    if approvals is None:
        raise ProgramError(
            "A tool needs a person's approval, and the adapter has no key to sign the approval request: pass "
            "approvals=oneturn.Approvals(key) to ResponsesAdapter."
        )
    return approvals


def read_request(
    request: ResponsesAgentRequest | Mapping[str, Any],
) -> tuple[ResponsesAgentRequest, RequestOptions]:
    """Read a request: every field is honoured, or refused by name.

    Args:
        request: the body of a request, or MLflow's request.

    Returns:
        The valid request, with ``instructions`` as its first system message; and what it asks for besides its inputs.

    Raises:
        RequestError: the request doesn't match the Responses protocol, or has a field that isn't supported.
    """
    body = request.model_dump(exclude_none=True) if isinstance(request, ResponsesAgentRequest) else request
    fields, options = read_fields(body if _is_encodable(body) else replace_surrogates_deep(body))
    return validate_request(fields), options


def validate_request(request: ResponsesAgentRequest | Mapping[str, Any]) -> ResponsesAgentRequest:
    """Validate a request, which MLflow may pass as a dict, and replace unpaired surrogates.

    LMs and trace stores reject text that UTF-8 can't encode. Items that MLflow's types don't know, such as
    ``mcp_call``, are converted; see :func:`oneturn.responses.call_items.to_mlflow_items`.

    Raises:
        RequestError: the request doesn't match the Responses protocol.
    """
    data = request.model_dump() if isinstance(request, ResponsesAgentRequest) else request
    encodable = _is_encodable(data)
    if encodable and isinstance(request, ResponsesAgentRequest):
        return request
    data = data if encodable else replace_surrogates_deep(data)
    items = data.get("input") if isinstance(data, Mapping) else None
    return to_mlflow_request({**data, "input": to_mlflow_items(items)} if isinstance(items, list) else data)


def _is_encodable(request: Any) -> bool:
    """Whether UTF-8 can encode the request: JSON may contain unpaired surrogates."""
    try:
        json.dumps(request, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True
