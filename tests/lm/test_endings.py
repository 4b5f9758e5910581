"""How replies and requests end early, by the names and words of each provider, for LMs on any route."""

from __future__ import annotations

import json
from typing import Any

import databricks_dspy
import dspy
import pytest
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMError,
    LMInvalidRequestError,
    LMServerError,
    LMUnsupportedFeatureError,
)

import oneturn
from oneturn import ReAct
from oneturn.errors import AgentError, RunError
from oneturn.lm import capabilities
from oneturn.lm.capabilities import is_format_refusal
from oneturn.lm.endings import error_cause, finish_reason, openai_error
from tests.programs.react.chat_stub import calls, chat_stub

STREAMING = pytest.mark.parametrize("streaming", [False, True])
FINISH = calls(("finish", {"answer": "It is 4 euros."}))
LITELLM = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}


@pytest.fixture(autouse=True)
def nothing_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_refused", set())


def look_up(item: str) -> str:
    """Look up an item."""
    return f"{item}: " + "it costs 4 euros. " * 100


def ask(lm: dspy.BaseLM, streaming: bool = False, **options: Any) -> dict[str, Any]:
    """The response of an agent, and the text deltas of a stream."""
    program = ReAct("question -> answer", tools=[look_up], **options)
    program.set_lm(lm)
    agent = oneturn.ResponsesAdapter(program)
    request: Any = {"input": [{"role": "user", "content": "?"}]}
    if not streaming:
        return agent.predict(request).model_dump()
    events = [event.model_dump() for event in agent.predict_stream(request)]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    return {**events[-1]["response"], "deltas": deltas}


def text_of(response: dict[str, Any]) -> str:
    return str(response["output"][-1]["content"][0]["text"])


# Options and inputs that DSPy sends through LiteLLM


@STREAMING
@pytest.mark.parametrize(
    "options",
    [LITELLM, {"repetition_penalty": 1.1}, {"drop_params": True}, {"thinking": {"type": "enabled"}}],
    ids=lambda options: next(iter(options)),
)
def test_an_option_for_litellm_reaches_the_provider(options: dict[str, Any], streaming: bool):
    model = "databricks/databricks-claude-sonnet-4" if "thinking" in options else "openai/gpt-4o-mini"
    with chat_stub(calls(("look_up", {"item": "x"})), FINISH) as stub:
        response = ask(stub.lm(model, **options), streaming)
    assert text_of(response) == "It is 4 euros."
    assert [len(body["tools"]) for body in stub.requests] == [2, 2]
    assert response["usage"]["output_tokens"] == 10
    if options is LITELLM:
        assert stub.requests[1]["chat_template_kwargs"] == {"enable_thinking": False}
    if streaming:
        assert "".join(response["deltas"]) == "It is 4 euros."
        assert len(response["deltas"]) > 1


@STREAMING
def test_a_module_of_dspy_streams_through_litellm(streaming: bool):
    with chat_stub("[[ ## answer ## ]]\n4 euros\n\n[[ ## completed ## ]]") as stub:
        program = oneturn.ResponsesAdapter(dspy.Predict("question -> answer"))
        request: Any = {"input": [{"role": "user", "content": "?"}]}
        with dspy.context(lm=stub.lm(**LITELLM)):
            if streaming:
                response = [event.model_dump() for event in program.predict_stream(request)][-1]["response"]
            else:
                response = program.predict(request).model_dump()
    assert text_of(response) == "4 euros"


def test_a_reply_through_litellm_is_cached_unless_it_ended_early():
    cut = {"role": "assistant", "content": "It is 4", "finish_reason": "length"}
    with oneturn.core._dspy.replaced_cache(memory=True), chat_stub(cut, FINISH) as stub:
        lm = stub.lm(cache=True, **LITELLM)
        with oneturn.core.usage.track_usage() as tracker:
            assert ask(lm)["status"] == "incomplete"
        assert tracker.usage.output_tokens == 5, "counted once"
        assert [text_of(ask(lm)) for _ in range(2)] == ["It is 4 euros."] * 2
    assert len(stub.requests) == 2


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (dspy.File(file_data="data:application/pdf;base64,JVBERg==", filename="a.pdf"), "file"),
        (dspy.Audio(data="AAAA", audio_format="wav"), "input_audio"),
    ],
    ids=["file", "audio"],
)
def test_a_file_and_audio_reach_the_provider(value: Any, part: str):
    def read() -> Any:
        """Read it."""
        return value

    signature = dspy.Signature("question, document -> answer").with_updated_fields("document", type_=type(value))
    program = ReAct(signature, tools=[read])
    with chat_stub(calls(("read", {})), FINISH) as stub:
        program.set_lm(stub.lm("openai/gpt-4o"))
        assert program(question="?", document=value).answer == "It is 4 euros."
    assert [json.dumps(stub.requests[1]["messages"]).count(f'"type": "{part}"')] == [2]


def test_a_result_that_the_engine_cannot_carry_keeps_its_label(monkeypatch: pytest.MonkeyPatch):
    def read() -> dspy.File:
        """Read it."""
        return dspy.File(file_data="data:application/pdf;base64,JVBERg==", filename="a.pdf")

    with chat_stub(calls(("read", {})), FINISH) as stub:
        monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{stub.port}")
        monkeypatch.setenv("DATABRICKS_TOKEN", "t")
        program = ReAct("question -> answer", tools=[read])
        config = oneturn.config.LMConfig(model="databricks/databricks-gpt-5", cache=False)
        program.set_lm(oneturn.lm.build_lm(config))
        assert program(question="?").answer == "It is 4 euros."
    assert "[file: a.pdf]" in json.dumps(stub.requests[1]["messages"])
    assert "tools" in stub.requests[1], "it isn't taken for a refusal of the tools"


# Endings


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("model_length", "length"),
        ("MAX_TOKENS", "length"),
        ("max_output_tokens", "length"),
        ("content_filter: SAFETY", "content_filter"),
        ("safety", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("input_guardrail_triggered", "content_filter"),
        ("error", "error"),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", None),
        ("end_turn", None),
        ("eos", None),
    ],
)
def test_a_finish_reason_is_known_by_its_words(name: str, ending: str | None):
    assert finish_reason(name) == ending


@STREAMING
@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("model_length", "It is 4 eur", "incomplete", None),
        ("max_tokens", "It is 4 eur", "incomplete", None),
        ("content_filter: SAFETY", "", "failed", "content_filter"),
    ],
)
def test_a_reply_ends_by_any_name(name: str, content: str, status: str, code: str | None, streaming: bool):
    with chat_stub({"role": "assistant", "content": content, "finish_reason": name}) as stub:
        if code and not streaming:
            with pytest.raises(AgentError) as error:
                ask(stub.lm())
            assert error.value.code == code
            return
        response = ask(stub.lm(), streaming)
    assert (response["status"], (response.get("error") or {}).get("code")) == (status, code)


def test_a_reply_that_the_provider_broke_off_is_an_error_of_the_provider():
    with chat_stub({"role": "assistant", "content": "It", "finish_reason": "error"}) as stub:
        program = ReAct("question -> answer", tools=[])
        program.set_lm(stub.lm())
        with pytest.raises(LMServerError, match="finish_reason 'error'"):
            program(question="?")


def test_the_usage_of_a_stream_that_is_asked_for_again_counts():
    empty = {"role": "assistant", "content": ""}
    with chat_stub(empty, FINISH) as stub:
        response = ask(stub.lm(), streaming=True)
    assert (len(stub.requests), response["usage"]["output_tokens"]) == (2, 10)


class Gateway(dspy.LM):
    """An LM class with a ``forward`` of its own, as ``databricks_dspy.DatabricksLM`` is."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("options", [{}, LITELLM], ids=["native", "litellm"])
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ({**FINISH, "finish_reason": "length"}, None),
        ({"role": "assistant", "content": "It is 4", "finish_reason": "length"}, "max_output_tokens"),
        ({"role": "assistant", "content": "It", "finish_reason": "content_filter"}, "content_filter"),
        ({"role": "assistant", "content": None, "refusal": "I can't."}, "refusal"),
    ],
    ids=["complete", "cut", "filtered", "refused"],
)
def test_the_replies_of_an_lm_with_its_own_forward_are_checked(
    reply: dict[str, Any], code: str | None, options: dict[str, Any]
):
    assert databricks_dspy.DatabricksLM.forward is not dspy.LM.forward
    with chat_stub(reply) as stub:
        plain = stub.lm(**options)
        program = ReAct("question -> answer", tools=[])
        program.set_lm(Gateway(plain.model, cache=False, num_retries=0, **plain.kwargs))
        if code is None:
            assert program(question="?").answer == "It is 4 euros."
            return
        with pytest.raises(RunError) as error:
            program(question="?")
    assert error.value.code == code


# Errors


def invalid(message: str, code: str | None = None) -> LMError:
    return LMInvalidRequestError(message, provider_code=code, status=400)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (invalid("Malformed function call: print(x)", "MALFORMED_FUNCTION_CALL"), "failed_reply"),
        (invalid("Bad request: tools are not supported for this endpoint", "MALFORMED_REQUEST"), None),
        (invalid("Malformed function call: print(x)", "inband_finish_reason"), "failed_reply"),
        (invalid("", "TOO_MANY_TOOL_CALLS"), "failed_reply"),
        (invalid("Candidate blocked: RECITATION", "RECITATION"), "content_filter"),
        (invalid("Prompt blocked: OTHER", "promptFeedback"), "content_filter"),
        (invalid("It was blocked.", "inband_finish_reason"), "content_filter"),
        (invalid("The response was filtered.", "content_filter"), "content_filter"),
        (invalid("litellm.ContentPolicyViolationError: filtered"), "content_filter"),
        (invalid("Invalid prompt: it was flagged.", "invalid_prompt"), "content_filter"),
        (invalid('{"finishReason":"input_guardrail_triggered"}', "BAD_REQUEST"), "content_filter"),
        (invalid("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"), "context_length"),
        (invalid("the request exceeds the available context size (4096 tokens)"), "context_length"),
        (invalid("Please reduce the length of the messages or completion."), "context_length"),
        (invalid("Input is too long for requested model."), "context_length"),
        (invalid("'max_tokens' is too large. This model's maximum context length is 8192 tokens"), "context_length"),
        (invalid("Function call is missing a thought_signature", "inband_finish_reason"), None),
        (invalid("Invalid 'input[3].call_id': string too long. Expected a maximum length 64"), None),
        (invalid("max_tokens is too large: 100000. This model supports at most 16384 completion tokens"), None),
        (invalid("max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens for claude"), None),
        (invalid("Invalid value for safety_settings"), None),
        (invalid("tools isn't supported"), None),
        (ContextWindowExceededError(), "context_length"),
    ],
    ids=str,
)
def test_the_cause_of_an_error(error: LMError, cause: str | None):
    assert error_cause(error) == cause
    if cause:
        assert not is_format_refusal(error)


def test_an_unsupported_option_is_no_refusal_of_the_format():
    assert not is_format_refusal(LMUnsupportedFeatureError("'extra_body' cannot be carried by a canonical Request"))
    assert is_format_refusal(LMUnsupportedFeatureError("x does not support tools"))


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": "maximum context length is 9", "code": 400},
        {"error": "Input validation error: `inputs` must have less than the context window"},
        {"error_code": "BAD_REQUEST", "message": "Input is too long"},
        {"error": {"message": "the request exceeds the available context size"}},
        {"detail": "maximum context length is 9"},
    ],
)
def test_an_error_body_of_any_form_is_read(body: dict[str, Any]):
    error = json.loads(openai_error(400, json.dumps(body)))["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"] in json.dumps(body)
    for other in ("no JSON", "[1]", '{"detail": [{"loc": []}]}'):
        assert openai_error(400, other) == other


@STREAMING
@pytest.mark.parametrize("options", [{}, LITELLM], ids=["native", "litellm"])
def test_a_prompt_too_long_in_words_only_cuts_the_longest_observation(options: dict[str, Any], streaming: bool):
    def check(body: dict[str, Any]) -> str | None:
        too_long = json.dumps(body["messages"]).count("it costs") > 60
        return "Please reduce the length of the messages." if too_long else None

    with chat_stub(calls(("look_up", {"item": "x"})), FINISH, check=check) as stub:
        assert text_of(ask(stub.lm(**options), streaming)) == "It is 4 euros."
    assert "(cut: too long)" in json.dumps(stub.requests[-1]["messages"])


@pytest.mark.parametrize("program", [ReAct("question -> answer", tools=[]), dspy.Predict("question -> answer")])
def test_a_filtered_prompt_is_told_as_such(program: dspy.Module):
    def check(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 400, {"message": "The response was filtered", "code": "content_filter"}

    with chat_stub(check=check) as stub:
        program.set_lm(stub.lm())
        request: Any = {"input": [{"role": "user", "content": "?"}]}
        with pytest.raises(AgentError) as error:
            oneturn.ResponsesAdapter(program).predict(request)
    assert (error.value.code, error.value.status, error.value.retryable) == ("content_filter", 422, False)
