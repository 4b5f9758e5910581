"""What oneturn relies on in DSPy beyond its public API. When DSPy moves, a failure says what broke, and where.

The private names are in ``oneturn/core/_dspy*.py`` only. They are imported in the tests, not at the top:
without one of their names they can't be imported at all, and then the tests of the names say which.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy.lm15 import AsyncOpenAIChatLM, Message, OpenAIChatLM, Request, Response, TextPart, Usage
from openai.types.chat import ChatCompletion

import oneturn
from oneturn.testing import ScriptedLM

PRIVATE = sorted((Path(oneturn.__file__).parent / "core").glob("_dspy*.py"))
IMAGE = dspy.Image("data:image/png;base64,AAAA")
REQUEST = Request(model="echo/lm", messages=(Message.user("q"),))

CARRIED = "programs whose LM is called through LiteLLM (core/_dspy_litellm.py)"
NAMES = {
    "dspy._vendor.lm15.providers.openai_chat": "how a reply ended, and why a request was refused (lm/endings.py)",
    "dspy._vendor.lm15.serde.request_to_dict": "the keys of a compile's journal (compilation/replay_lm.py)",
    "dspy._vendor.lm15.serde.response_from_dict": "replies from a compile's journal (compilation/replay_lm.py)",
    "dspy._vendor.lm15.serde.response_to_dict": "replies in a compile's journal (compilation/replay_lm.py)",
    "dspy._vendor.lm15.transports.StdlibAsyncTransport": "acall's connections (lm/databricks.py, lm/local/engine.py)",
    "dspy._vendor.lm15.transports": "the interruption of an LM's calls (lm/transport.py)",
    "dspy._vendor.lm15.transports.StdlibTransport": "an LM's connections (lm/transport.py)",
    "dspy._vendor.lm15.transports.TransportError": "the interruption of an LM's calls (lm/transport.py)",
    "dspy._vendor.lm15.transports.TransportResponse": "the interruption of an LM's calls (lm/transport.py)",
    "dspy.adapters._legacy_type_markers._expand_legacy_custom_type_markers_in_chat_message": (
        "images and files in the prompt of oneturn.ReAct (programs/react/prompt.py)"
    ),
    "dspy.adapters.chat_adapter.field_header_pattern": "streamed replies to ChatAdapter (programs/stream_parsers.py)",
    "dspy.adapters.types.tool._resolve_json_schema_reference": "annotated tool arguments (programs/react/grounding.py)",
    "dspy.adapters.utils.format_field_value": "inputs in the prompt of oneturn.ReAct (programs/react/prompt.py)",
    "dspy.adapters.utils.parse_value": "outputs of the wrong type (programs/react/outputs.py)",
    "dspy.adapters.utils.serialize_for_json": "every value that is written as JSON (core/serialization.py)",
    "dspy.predict.predict.serialize_object": "demos of a saved program (programs/state/artifact.py)",
    "dspy.clients.execution": "streaming (lm/streaming.py) and the journal of a compile (compilation/replay_lm.py)",
    "dspy.clients.model_metadata": "costs (core/usage.py)",
    "dspy.clients.costs.estimate_cost": "costs (core/usage.py) and a compile's budget (compilation/replay_lm.py)",
    "dspy.clients._litellm.get_litellm": "the names of missing keys (lm/failures.py)",
    "dspy.clients.backend_selection.select_backend": "the names of missing keys (lm/failures.py)",
    "dspy.clients._deprecation.adapter_message_call": "a warning about each call through LiteLLM",
    "dspy.clients.backend_selection.CLIENT_KEYS": CARRIED,
    "dspy.clients.call_result.CallResult": CARRIED,
    "dspy.clients.call_result.combine": CARRIED,
    "dspy.clients.engines.legacy_engine.AsyncLegacyEngine": CARRIED,
    "dspy.clients.engines.legacy_engine.LegacyEngine": CARRIED,
    "dspy.clients.engines.lifecycle.closing_stream": CARRIED,
    "dspy.clients.engines.litellm_engine._ChatStream": CARRIED,
    "dspy.clients.engines.litellm_errors.litellm_errors": CARRIED,
    "dspy.clients.legacy_outputs.plain": CARRIED,
    "dspy.clients.lm._add_dspy_identifier_to_headers": CARRIED,
    "dspy.clients.lm15_boundary.request_kwargs": CARRIED,
    "dspy.clients.lm15_boundary.response_value": CARRIED,
    "dspy.utils.exceptions.LMError": CARRIED,
    "dspy.clients.lm._is_openai_reasoning_model": "the LMs that take no temperature (lm/__init__.py)",
    "dspy.clients.engines.lm15_engine.LM15Engine": "the names of missing keys (lm/failures.py)",
    "dspy.clients.call_result.usage_dict": "the usage of wrapped engines (lm/streaming.py, compilation/replay_lm.py)",
    "dspy.teleprompt.bootstrap_trace_data": "the candidates of a compile (compilation/callbacks.py)",
    "dspy.utils.callback.BaseCallback": "a failed run's cached replies (programs/react/llm_step.py)",
    "dspy.utils.parallelizer": "a compile's progress outside a terminal (compilation/session.py)",
    "dspy.utils.usage_tracker.UsageTracker": "the count of LM calls and tokens (core/usage.py)",
}
"""The names that these files import, and what needs them."""


def broken(reliance: str, breaks: str) -> str:
    return f"DSPy {dspy.__version__}: it no longer holds that {reliance}. This breaks {breaks}."


def relies_on(reliance: str, breaks: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Fail with a message that says what oneturn relied on, and what breaks."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def checked(*args: Any, **kwargs: Any) -> None:
            try:
                test(*args, **kwargs)
            except Exception as error:
                pytest.fail(f"{broken(reliance, breaks)}\n{type(error).__name__}: {error}")

        return checked

    return decorate


def is_there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.fixture
def private() -> Any:
    try:
        modules = [importlib.import_module(f"oneturn.core.{path.stem}") for path in PRIVATE]
    except ImportError as error:
        pytest.fail(f"{error}; see test_a_name_is_there", pytrace=False)
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


class Echo:
    """An engine that counts its requests and always replies the same."""

    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, text: str = "[[ ## answer ## ]]\na"):
        self.text = text
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Response:
        self.requests.append(request)
        return reply(request.model, self.text)


def reply(model: str, text: str = "a") -> Response:
    usage = Usage(input_tokens=1000, output_tokens=10)
    return Response(id=None, model=model, message=Message.assistant(TextPart(text)), finish_reason="stop", usage=usage)


class OwnLM(dspy.BaseLM):
    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> ChatCompletion:
        message = {"role": "assistant", "content": "[[ ## answer ## ]]\na"}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        fields = {"id": "1", "object": "chat.completion", "created": 1, "model": self.model, "usage": usage}
        return ChatCompletion.model_validate({**fields, "choices": choices})


# The names


@pytest.mark.parametrize(("name", "breaks"), NAMES.items(), ids=list(NAMES))
def test_a_name_is_there(name: str, breaks: str):
    assert is_there(name), broken(f"there is a {name}", breaks)


def test_a_name_that_is_gone_is_not_there():
    assert not is_there("dspy.clients.execution._engines")
    assert not is_there("dspy._vendor.lm16.serde.request_to_dict")


def test_every_imported_name_is_listed_with_its_use():
    trees = [ast.parse(path.read_text()) for path in PRIVATE]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{name.name}" for node in imports for name in node.names if node.module != "dspy.lm15"}
    assert {name for name in names if name.startswith("dspy.")} == set(NAMES)


# The engines of LMs


@relies_on(
    "a dspy.LM calls the engine in `_engine_spec`, also if it has an api_key", "streaming and a compile's journal"
)
def test_an_engine_can_be_wrapped(private: Any):
    lm = dspy.LM("openai/x", api_key="k", cache=False)
    view = private.with_engine(lm, Echo("wrapped"))
    assert private.uses_engine(lm)
    assert view("q") == ["wrapped"]
    assert (lm.engine, view.kwargs["api_key"]) == ("auto", "k")


@relies_on("a dspy.LM that overrides `forward` is called through it", "the test whether an LM's engine can be wrapped")
def test_an_lm_with_a_forward_of_its_own_uses_no_engine(private: Any):
    class Overriding(dspy.LM):
        forward = OwnLM.forward

    lm = Overriding("own/lm", engine=Echo(), cache=False)
    assert lm("q") == ["[[ ## answer ## ]]\na"]
    assert lm.engine.requests == []
    assert not private.uses_engine(lm)
    assert not private.uses_engine(dspy.LM("openai/x", model_type="text"))
    assert not private.uses_engine(OwnLM("own/lm"))


@relies_on("`execution._engine` gives an LM's engine, request and provider", "streaming and a compile's journal")
def test_an_engine_is_called_past_the_lm(private: Any):
    lm = dspy.LM("echo/lm", engine=Echo())
    call = private.engine_call(lm, REQUEST)
    assert (call.engine, call.request, call.provider) == (lm.engine, REQUEST, None)
    assert call.cost(reply("echo/lm")) is None
    native = private.engine_call(dspy.LM("openai/x", api_key="k"), Request(model="openai/x", messages=REQUEST.messages))
    assert native.provider is not None
    assert callable(native.engine.complete)
    assert callable(native.engine.stream)


@relies_on("an option that lm15 doesn't know sends a call through LiteLLM", CARRIED)
def test_a_call_for_litellm_reaches_a_wrapping_engine(private: Any):
    lm = dspy.LM("openai/x", api_key="k", cache=False, extra_body={"a": 1}, n=2)
    engine = Echo("wrapped")
    view = private.with_engine(lm, engine)
    assert view.engine is engine
    assert view("q") == ["wrapped", "wrapped"]
    carried = engine.requests[0]
    assert private.request_to_dict(carried)["litellm"]["extra_body"] == {"a": 1}
    assert "api_key" not in carried.options
    call = private.engine_call(lm, carried)
    assert (call.request, call.provider, hasattr(call.engine, "stream")) == (carried, None, True)


@relies_on("a managed LM is called by its engine, any other by `forward` of the instance", "checks of own LM classes")
def test_the_forward_of_an_lm_is_checked(private: Any):
    replies: list[Response] = []
    lm = OwnLM("own/lm", cache=False)
    assert private.owns_forward(lm)
    assert not private.owns_forward(dspy.LM("openai/x"))
    assert private.with_checked_forward(lm, replies.append)("q") == lm("q")
    assert [reply.finish_reason for reply in replies] == ["stop"]


@relies_on("an AsyncOpenAIChatLM parses with the client in `_inner`", "Databricks' error messages in acall")
def test_an_async_client_parses_with_a_sync_one(private: Any):
    class Parser(OpenAIChatLM):
        def normalize_error(self, status: int, body: str) -> Any:
            return f"{status}: {body}"

    client = AsyncOpenAIChatLM(api_key="k", base_url="http://127.0.0.1:9/v1")
    private.parse_with(client, Parser)
    assert client.normalize_error(400, "no") == "400: no"


@relies_on("an OpenAIChatLM builds its messages with `_build_messages`", "signed reasoning for Databricks")
def test_a_chat_client_s_messages_are_changed(private: Any):
    class Shouting(private.ChatClient):
        def change_messages(self, messages: list[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
            return [{**message, "content": message["content"].upper()} for message in messages]

    client = Shouting(api_key="k", base_url="http://127.0.0.1:9/v1")
    for stream in (True, False):
        body = json.loads(client.build_request(REQUEST, stream).body)
        assert [message["content"] for message in body["messages"]] == ["Q"]


@relies_on("a transport takes timeouts and trust_env", "the timeout of an LM; a local prompt could go through a proxy")
def test_transports_take_timeouts(private: Any):
    with private.ObservedTransport(connect_timeout=1.0, read_timeout=2.0, trust_env=False):
        pass
    assert callable(private.StdlibAsyncTransport(connect_timeout=1.0, read_timeout=2.0, trust_env=False).aclose)


@relies_on("lm15 writes requests and responses as JSON", "the journal of a compile")
def test_requests_and_responses_become_json(private: Any):
    response = reply("echo/lm")
    request, written = json.loads(json.dumps([private.request_to_dict(REQUEST), private.response_to_dict(response)]))
    assert (request["model"], private.response_from_dict(written)) == ("echo/lm", response)


@relies_on("a BaseLM's `forward` may return OpenAI's chat completion", "programs with an LM class of the user's own")
def test_an_lm_may_have_a_forward_of_its_own():
    with dspy.context(lm=OwnLM("own/lm")):
        assert dspy.Predict("question -> answer")(question="q").answer == "a"


# The state of the process


@relies_on("dspy.configure_cache replaces `dspy.cache`", "repeated rows of an evaluation and the cache of a compile")
def test_the_cache_is_replaced(private: Any):
    lm = dspy.LM("echo/lm", engine=Echo(), cache=True)
    calls = []
    for memory in (True, False):
        lm("q")
        with private.replaced_cache(memory=memory):
            lm("q")
            lm("q")
        calls.append(len(lm.engine.requests))
    assert calls == [2, 4]


@relies_on(
    "`model_metadata._data` is None until DSPy prices a call", "costs: the price list would be fetched, or none known"
)
def test_prices_are_loaded_when_a_call_is_priced(private: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.import_module("dspy.clients.model_metadata"), "_data", None)
    assert not private.has_price_list()
    cost, _ = private.estimate_cost(reply("gpt-4o-mini"), provider="openai", requested_model="gpt-4o-mini")
    assert cost > 0
    assert private.has_price_list()


@relies_on("`model_metadata` names the models of a provider", "the price of cached tokens (core/usage.py)")
def test_prices_are_found_by_the_name_of_the_provider(private: Any):
    for provider, name in (("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4-5")):
        cost, _ = private.estimate_cost(
            reply(name), provider="openai", requested_model=name, namespaces=private.price_namespaces(provider)
        )
        assert cost == private.estimate_cost(reply(name), provider=provider, requested_model=name)[0] > 0


@relies_on("`usage_dict` adds what a provider counts apart", "the usage of streamed replies, and of a compile's")
def test_cached_tokens_are_part_of_the_input(private: Any):
    response = reply("claude")
    apart = dataclasses.replace(response, usage=Usage(input_tokens=10, output_tokens=2, cache_read_tokens=90))
    call = private.EngineCall(None, REQUEST, "anthropic")
    assert call.with_inclusive_usage(apart).usage.input_tokens == 100
    assert call.with_inclusive_usage(response).usage == response.usage


@relies_on("a UsageTracker keeps a list of entries for each LM in `usage_data`", "the count of LM calls and tokens")
def test_usage_is_tracked_by_lm(private: Any):
    tracker = private.UsageTracker()
    tracker.usage_data["lm"].extend([{"prompt_tokens": 1}, {"prompt_tokens": 2}])
    tracker.add_usage("lm", {"prompt_tokens": 3})
    assert len(tracker.usage_data["lm"]) == 3
    assert tracker.get_total_tokens() == {"lm": {"prompt_tokens": 6}}


@relies_on("dspy.settings has these keys", "streaming of modules (programs/callback.py) and traces of oneturn.ReAct")
@pytest.mark.parametrize("key", ["caller_modules", "callbacks", "adapter", "trace", "max_trace_size", "usage_tracker"])
def test_a_setting_is_there(key: str):
    assert key in dspy.settings


# Prompts


@relies_on("an adapter's `format` may return a chat as OpenAI's dicts", "oneturn.ReAct (programs/react/prompt.py)")
def test_a_prompt_may_be_dicts(private: Any):
    class Dicts(dspy.ChatAdapter):
        def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
            content = f"Look: {private.format_field_value(signature.input_fields['image'], IMAGE)}"
            return [
                {"role": "system", "content": "Be brief."},
                private.to_content_parts({"role": "user", "content": content}),
            ]

    lm = dspy.LM("echo/lm", engine=Echo(), cache=False)
    with dspy.context(lm=lm, adapter=Dicts()):
        dspy.Predict("image: dspy.Image -> answer")(image=IMAGE)
    (request,) = lm.engine.requests
    assert "Be brief." in str(request.system)
    assert [part.type for part in request.messages[0].parts] == ["text", "image"]


@relies_on(
    "JSONAdapter asks `_prepare_response_format` for the format of a reply and `_call_postprocess` for its fields",
    "the tools and the JSON schema of oneturn.ReAct's steps, and its function calls",
)
def test_an_adapter_sets_the_options_of_the_request_and_reads_the_reply(private: Any):
    class Answers(private.RequestAdapter):  # type: ignore[name-defined, misc]
        def request_options(self, lm: Any) -> dict[str, Any]:
            schema = {"type": "object", "properties": {"answer": {"const": "a"}}}
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "step", "schema": schema}}}

        def read(self, signature: Any, reply: Any) -> dict[str, Any]:
            return dict(json.loads(reply["text"]))

    lm = dspy.LM("echo/lm", engine=Echo('{"answer": "a"}'), cache=False)
    with dspy.context(lm=lm, adapter=Answers()):
        dspy.Predict("question -> answer")(question="q")
    assert '"const": "a"' in json.dumps(lm.engine.requests[0].config.response_format)


@relies_on("ChatAdapter marks the fields of a reply with such headers", "streaming of ChatAdapter's replies")
def test_a_header_names_a_field(private: Any):
    assert private.field_header_pattern.match("[[ ## answer ## ]]").group(1) == "answer"


@relies_on(
    "values are formatted for prompts and as JSON", "the prompts of oneturn.ReAct, and every value written as JSON"
)
def test_values_are_formatted(private: Any):
    field = dspy.Signature("texts: str -> answer").input_fields["texts"]
    assert private.format_field_value(field, ["a", "b"]) == "[1] «a»\n[2] «b»"
    assert private.serialize_for_json({"image": object, "at": [1, "a", None]})["at"] == [1, "a", None]
    assert isinstance(private.serialize_for_json(object()), str)
    assert private.parse_value('{"a": 1}', dict[str, int]) == {"a": 1}


@relies_on("references in a JSON schema are inlined", "tools with annotated arguments (programs/react/grounding.py)")
def test_references_are_inlined(private: Any):
    schema = {"$defs": {"N": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/N"}}}
    assert private.inline_references(schema) == {"properties": {"n": {"type": "integer"}}}


# Predictions and programs


@relies_on(
    "a Prediction keeps its fields in `_store` and hides those named dspy_…", "the tool calls that a metric is given"
)
def test_a_prediction_gets_a_hidden_field(private: Any):
    prediction = dspy.Prediction.from_completions([{"answer": "a"}, {"answer": "b"}])
    copied = private.with_field(prediction, "dspy_oneturn_run", 1)
    assert (copied.get("dspy_oneturn_run"), prediction.get("dspy_oneturn_run")) == (1, None)
    assert (dict(copied.items()), len(copied.completions)) == ({"answer": "a"}, 2)


@relies_on("an Example keeps its input names in `_input_keys`", "evaluation on rows that mark their inputs")
def test_an_example_marks_its_inputs(private: Any):
    example = dspy.Example(question="q", answer="a")
    assert not private.has_inputs(example)
    assert private.has_inputs(example.with_inputs("question"))


@relies_on("a module whose `_compiled` is true is skipped", "recipes that run one optimizer after another")
def test_a_compiled_program_is_skipped_until_it_is_marked(private: Any):
    program = dspy.Module()
    program.part = dspy.ChainOfThought("question -> answer")
    program.part._compiled = True
    assert program.named_predictors() == []
    private.mark_uncompiled(program.part)
    assert len(program.named_predictors()) == 1


@relies_on(
    "bootstrap_trace_data sets `forward` on the program", "the candidates of a compile: they couldn't be saved or run"
)
def test_forward_is_restored_while_and_after_traces_are_recorded(private: Any):
    restored = []

    class Program(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            restored.append(("forward" in vars(self), "forward" in vars(private.restore_forward(copy.copy(self)))))
            return dspy.Prediction(answer=question)

    program = Program()
    example = dspy.Example(question="q").with_inputs("question")
    dspy.teleprompt.bootstrap_trace_data(program, [example], lambda *_: 1.0, num_threads=1)
    assert restored == [(True, False)]
    assert "forward" in vars(program)
    assert "forward" not in vars(private.restore_forward(program))


def test_the_cache_forgets_the_replies_of_a_run(private: Any):
    with private.replaced_cache(memory=True):
        lm = ScriptedLM("first", "second", cache=True)
        replies = private.CachedReplies()
        with dspy.context(callbacks=[replies]):
            assert [lm("q"), lm("q")] == [["first"], ["first"]]
            assert len(dspy.cache.memory_cache) == 1
        replies.forget()
        assert len(dspy.cache.memory_cache) == 0
        assert lm("q") == ["second"]


@pytest.mark.parametrize(
    ("model", "variables"),
    [
        ("openai/x", {"OPENAI_API_KEY"}),
        ("anthropic/x", {"ANTHROPIC_API_KEY"}),
        ("gemini/x", {"GEMINI_API_KEY"}),
        ("groq/x", {"GROQ_API_KEY"}),
        ("openrouter/x", {"OPENROUTER_API_KEY"}),
        ("mistral/x", {"MISTRAL_API_KEY"}),  # by LiteLLM
        ("together_ai/x", {"TOGETHERAI_API_KEY"}),
        ("ollama_chat/x", set()),
    ],
)
def test_a_provider_s_key_has_a_name(model: str, variables: set[str], monkeypatch: pytest.MonkeyPatch):
    from oneturn.core._dspy import key_variables

    for name in [*variables, "GOOGLE_API_KEY"]:
        monkeypatch.delenv(name, raising=False)
    assert set(key_variables(dspy.LM(model))) == variables
    assert key_variables(dspy.LM(model, api_key="k")) == ()


def test_parallel_calls_draw_no_bars(capfd: pytest.CaptureFixture[str]):
    from oneturn.core._dspy import without_bars

    examples = [dspy.Example(question=str(n)).with_inputs("question") for n in range(3)]
    evaluate = dspy.Evaluate(devset=examples, metric=lambda *_: 1.0, num_threads=1, display_progress=True)
    program = lambda question: dspy.Prediction(answer=question)  # noqa: E731
    evaluate(program)
    assert "\r" in "".join(capfd.readouterr()), "the bar that is to be hidden"
    with without_bars():
        assert evaluate(program).score == 100.0
    assert "\r" not in "".join(capfd.readouterr())
