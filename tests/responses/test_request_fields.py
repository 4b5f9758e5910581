"""Each field of a request is honoured, or refused by name."""

from __future__ import annotations

import json
from typing import Any, Literal

import dspy
import pydantic
import pytest
from mlflow.types.responses import ResponsesAgentRequest

import oneturn
from oneturn.core.steps import Answer
from oneturn.errors import RequestError
from oneturn.responses.dialects import Dialect
from oneturn.responses.parsing import read_request
from oneturn.responses.request_fields import ACCEPTED_VALUES, agent_request
from oneturn.testing import ScriptedLM, call, finish, sections


class Ask(dspy.Signature):
    """Answer."""

    system_message: str = dspy.InputField(default="")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    sure: bool = dspy.OutputField()
    mood: Literal["good", "bad"] | None = dspy.OutputField()


FINISHED = finish(answer="Yes.", sure=True, mood="good")


def look_up(word: str) -> str:
    """Look a word up."""
    return f"meaning of {word}"


def agent(*replies: Any, signature: Any = Ask, **options: Any) -> tuple[oneturn.ResponsesAdapter, ScriptedLM]:
    lm = ScriptedLM(*(replies or [FINISHED]), **options)
    program = oneturn.ReAct(signature, tools=[look_up])
    program.set_lm(lm)
    return oneturn.ResponsesAdapter(program), lm


def respond(adapter: oneturn.ResponsesAdapter, **fields: Any) -> dict[str, Any]:
    body: Any = {"input": "Is it so?", **fields}
    response: dict[str, Any] = adapter.run(adapter.parse(body)).model_dump()
    return response


def text(response: dict[str, Any]) -> str:
    return str(response["output"][-1]["content"][0]["text"])


UNSUPPORTED = {
    "background": True,
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "previous_response_id": "resp_1",
    "prompt": {"id": "pmpt_1"},
    "reasoning": {"effort": "low"},
    "service_tier": "priority",
    "store": True,
    "tool_choice": "required",
    "tools": [{"type": "web_search"}],
    "top_logprobs": 3,
    "truncation": "middle",
    "include": ["message.output_text.logprobs"],
    "stream_options": {"include_obfuscation": True},
    "text": {"verbosity": "low"},
    "max_tokens": 9,
    "databricks_options": {"return_trace": "yes"},
    "context": {"conversation_id": 1},
    "anything": 1,
    "temperature": 3,
    "max_output_tokens": 0,
    "max_tool_calls": 0,
    "stream": "yes",
    "metadata": {"a": 1},
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_field_is_refused_by_name(name: str):
    with pytest.raises(RequestError) as refused:
        read_request({"input": "?", name: UNSUPPORTED[name]})
    assert name in str(refused.value)
    assert (refused.value.param or "").startswith(name)


@pytest.mark.parametrize("name", ACCEPTED_VALUES)
def test_a_value_that_asks_for_nothing_is_accepted(name: str):
    for value in (None, *ACCEPTED_VALUES[name][0]):
        request, _ = read_request({"input": "?", name: value})
        assert len(request.input) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"anything": None, "max_tokens": None, "context": {"colour": None}, "text": {"colour": None}},
        {"databricks_options": None},
        {"databricks_options": {"return_trace": None, "conversation_id": None}},
    ],
)
def test_null_is_no_field(fields: dict[str, Any]):
    assert read_request({"input": "?", **fields})[0] == read_request({"input": "?"})[0]
    assert agent_request({"input": "?", **fields})[0].context is None


def test_databricks_options_hold_the_context():
    for read in (lambda body: read_request(body)[0], lambda body: agent_request(body)[0]):
        options = {"return_trace": True, "conversation_id": "old", "user_id": "me"}
        request = read({"input": "?", "databricks_options": options, "context": {"conversation_id": "new"}})
        assert request.context is not None
        assert request.context.model_dump() == {"conversation_id": "new", "user_id": "me"}


def test_other_keys_of_the_context_are_ignored_as_by_mlflow():
    for read in (lambda body: read_request(body)[0], lambda body: agent_request(body)[0]):
        options = {"long_task": True, "user_id": "me"}
        request = read({"input": "?", "databricks_options": options, "context": {"conversation_id": "a", "colour": 1}})
        assert request.context is not None
        assert request.context.model_dump() == {"conversation_id": "a", "user_id": "me"}


def test_a_hint_about_the_prompt_cache_is_repeated():
    _, options = read_request({"input": "?", "prompt_cache_key": "a", "prompt_cache_retention": "24h"})
    assert options.echo == {"prompt_cache_key": "a", "prompt_cache_retention": "24h"}


def test_false_is_no_zero_and_zero_is_not_false():
    for name, value in (("top_logprobs", False), ("store", 0), ("frequency_penalty", True)):
        with pytest.raises(RequestError, match=name):
            read_request({"input": "?", name: value})
    read_request({"input": "?", "frequency_penalty": 0.0, "reasoning": {"effort": None, "summary": None}})


def test_a_stored_item_and_a_stored_response_say_what_to_send():
    with pytest.raises(RequestError, match=r"input\.1 is an item_reference.*store: false \(with the AI SDK, set"):
        read_request({"input": [{"role": "user", "content": "?"}, {"type": "item_reference", "id": "msg_1"}]})
    with pytest.raises(RequestError, match=r"store True; send store: false \(with the AI SDK, set providerOptions"):
        read_request({"input": "?", "store": True})


@pytest.mark.parametrize("given", [None, 3, {"role": "user"}, [3], [{"role": "user"}]])
def test_an_input_that_is_no_text_and_no_items_is_refused(given: Any):
    with pytest.raises(RequestError) as refused:
        read_request({"input": given})
    assert refused.value.param == "input"


def test_a_text_is_a_user_message():
    adapter, lm = agent()
    assert text(respond(adapter, input="Is it so?")) == "Yes."
    assert "Is it so?" in lm.requests[0].text


def test_an_assistant_message_needs_no_id():
    history = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Maybe."}]},
    ]
    adapter, _ = agent()
    assert text(respond(adapter, input=[*history, {"role": "user", "content": "Sure?"}])) == "Yes."


def test_instructions_are_the_first_system_message():
    adapter, _ = agent()
    items = [{"role": "developer", "content": "Second."}, {"role": "user", "content": "?"}]
    parsed = adapter.parse({"input": items, "instructions": "First."})
    assert parsed.inputs["system_message"] == "First.\nSecond."


def test_instructions_without_a_field_for_them_are_refused():
    adapter, _ = agent(signature="question -> answer")
    with pytest.raises(RequestError, match="system_message") as refused:
        adapter.parse({"input": "?", "instructions": "Be brief."})
    assert refused.value.param == "instructions"


def test_each_lm_call_has_the_request_s_temperature_and_no_more_tokens_than_are_left():
    step = call("look_up", "I look it up", word="tide")
    for streaming in (True, False):
        adapter, lm = agent(step, FINISHED)
        parsed = adapter.parse({"input": "?", "temperature": 0.2, "top_p": 0.5, "max_output_tokens": 100})
        assert list(adapter.stream(parsed)) if streaming else adapter.run(parsed)
        first, second = (request.settings for request in lm.requests)
        assert first == {"temperature": 0.2, "top_p": 0.5, "max_tokens": 100}
        assert second == {**first, "max_tokens": 100 - len(json.dumps(step).split())}
    adapter, lm = agent()
    respond(adapter)
    assert "temperature" not in lm.requests[0].settings


def test_a_run_that_has_written_all_its_tokens_is_incomplete():
    adapter, lm = agent(call("look_up", "one two three four five", word="tide"))
    response = respond(adapter, max_output_tokens=3)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["usage"]["output_tokens"] > 3
    lm.check()


def test_a_dspy_module_has_the_request_s_settings():
    lm = ScriptedLM(sections(answer="Yes."))
    module = dspy.Predict("question -> answer")
    module.set_lm(lm)
    adapter = oneturn.ResponsesAdapter(module)
    assert text(respond(adapter, temperature=0.7, max_output_tokens=50)) == "Yes."
    assert lm.requests[0].settings == {"temperature": 0.7, "max_tokens": 50}
    with pytest.raises(RequestError, match="max_tool_calls") as refused:
        adapter.parse({"input": "?", "max_tool_calls": 1})
    assert refused.value.param == "max_tool_calls"


def test_a_module_whose_reply_was_cut_is_incomplete():
    module = dspy.Predict("question -> answer, count: int")
    module.set_lm(ScriptedLM(*["cut"] * 9))
    response = respond(oneturn.ResponsesAdapter(module), max_output_tokens=1)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


class Plain:
    """A program that calls its LM itself."""

    signature = Ask
    answer_field = "answer"
    citing_fields = ()

    def steps(self, **inputs: Any) -> Any:
        yield Answer(dspy.Prediction(answer="Yes.", sure=True, mood=None))


def test_a_program_that_does_not_apply_a_setting_refuses_it():
    adapter = oneturn.ResponsesAdapter(Plain())
    with pytest.raises(RequestError, match="This agent doesn't support temperature"):
        adapter.parse({"input": "?", "temperature": 0.1})


@pytest.mark.parametrize("limit", [1, 2])
def test_a_run_makes_no_more_tool_calls_than_allowed(limit: int):
    calls = [call("look_up", word=f"word{number}") for number in range(limit)]
    adapter, lm = agent(*calls, FINISHED)
    with lm:
        response = respond(adapter, max_tool_calls=limit)
    assert [item["type"] for item in response["output"]].count("function_call") == limit
    assert lm.requests[-1].offered == ["finish"]


def test_an_lm_that_calls_more_tools_than_allowed_is_told_to_finish():
    calls = [call("look_up", word=f"word{number}") for number in range(2)]
    adapter, lm = agent(*calls, FINISHED, response_schema=False)
    with lm:
        response = respond(adapter, max_tool_calls=1)
    assert [item["type"] for item in response["output"]].count("function_call") == 1
    assert "no more tools can be called" in lm.requests[-1].text


def test_metadata_is_repeated():
    adapter, _ = agent(*[FINISHED] * 2)
    assert respond(adapter, metadata={"team": "a"})["metadata"] == {"team": "a"}
    *_, last = adapter.stream(adapter.parse({"input": "?", "metadata": {"team": "a"}}))
    assert last["response"]["metadata"] == {"team": "a"}


def schema(**properties: Any) -> dict[str, Any]:
    names = {"properties": properties, "required": list(properties), "additionalProperties": False}
    return {"format": {"type": "json_schema", "name": "it", "schema": {"type": "object", **names}}}


def test_a_schema_that_the_outputs_fill_is_the_form_of_the_answer():
    wanted = schema(sure={"type": "boolean"}, answer={"type": "string"})
    adapter, _ = agent(*[FINISHED] * 2)
    response = respond(adapter, text=wanted)
    assert json.loads(text(response)) == {"sure": True, "answer": "Yes."}
    assert response["custom_outputs"] == {"sure": True, "mood": "good"}
    assert response["metadata"]["answer_field"] == ""
    stream = list(adapter.stream(adapter.parse({"input": "?", "text": wanted})))
    deltas = [event["delta"] for event in stream if event["type"] == "response.output_text.delta"]
    assert json.loads("".join(deltas)) == {"sure": True, "answer": "Yes."}


def test_json_object_is_all_outputs():
    adapter, _ = agent()
    response = respond(adapter, text={"format": {"type": "json_object"}})
    assert json.loads(text(response)) == {"answer": "Yes.", "sure": True, "mood": "good"}


def test_text_is_the_default():
    adapter, _ = agent()
    assert text(respond(adapter, text={"format": {"type": "text"}, "verbosity": "medium"})) == "Yes."


class Line(pydantic.BaseModel):
    item: str
    pieces: int


class Order(dspy.Signature):
    """Price an order."""

    question: str = dspy.InputField()
    lines: list[Line] = dspy.OutputField()
    total: float = dspy.OutputField()


LINE = {"type": "object", "properties": {"item": {"type": "string"}, "pieces": {"type": "number"}}}
MISFITS = {
    "an unknown output": (Ask, {"colour": {"type": "string"}}, "no 'colour'"),
    "another type": (Ask, {"sure": {"type": "string"}}, "'sure' is of type boolean, not string"),
    "a narrower enum": (Ask, {"mood": {"enum": ["good"]}}, "'mood' may have a value"),
    "no null": (Ask, {"mood": {"type": "string"}}, "'mood' is of type null, not string"),
    "a limit": (Ask, {"answer": {"type": "string", "maxLength": 9}}, "a limit (maxLength)"),
    "a narrower number": (Order, {"total": {"type": "integer"}}, "'total' is of type number, not integer"),
    "a part of an item": (
        Order,
        {"lines": {"type": "array", "items": {**LINE, "required": ["price"]}}},
        "an item of 'lines' has no 'price'",
    ),
    "a closed item": (
        Order,
        {"lines": {"type": "array", "items": {"type": "object", "properties": {}, "additionalProperties": False}}},
        "an item of 'lines' has 'item', which the schema doesn't allow",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_schema_that_the_outputs_may_not_fill_is_refused(case: str):
    signature, properties, reason = MISFITS[case]
    adapter, _ = agent(signature=signature)
    with pytest.raises(RequestError) as refused:
        adapter.parse({"input": "?", "text": schema(**properties)})
    assert reason in str(refused.value)
    assert (refused.value.param or "").startswith("text.format")


@pytest.mark.parametrize("given", [None, {"type": "nonsense"}, {"type": "object", "properties": 3}])
def test_a_format_that_is_no_json_schema_is_refused(given: Any):
    adapter, _ = agent()
    with pytest.raises(RequestError, match=r"text\.format"):
        adapter.parse({"input": "?", "text": {"format": {"type": "json_schema", "name": "it", "schema": given}}})


def test_a_schema_may_use_references_and_wider_types():
    adapter, _ = agent(finish(lines=[{"item": "cup", "pieces": 2}], total=3.5), signature=Order)
    wanted = schema(lines={"type": "array", "items": {"$ref": "#/$defs/Line"}}, total={"type": ["number", "null"]})
    wanted["format"]["schema"]["$defs"] = {"Line": {**LINE, "required": ["item", "pieces"]}}
    response = respond(adapter, text=wanted)
    assert json.loads(text(response)) == {"lines": [{"item": "cup", "pieces": 2}], "total": 3.5}


def test_the_schema_of_a_pydantic_model_as_a_strict_client_sends_it():
    class Wanted(pydantic.BaseModel):
        answer: str
        mood: Literal["good", "bad"] | None

    adapter, _ = agent()
    given = {"type": "json_schema", "name": "Wanted", "schema": Wanted.model_json_schema(), "strict": True}
    assert Wanted.model_validate_json(text(respond(adapter, text={"format": given}))) == Wanted(
        answer="Yes.", mood="good"
    )


def test_a_request_of_mlflow_s_type_is_read_alike():
    request = ResponsesAgentRequest(input=[{"role": "user", "content": "?"}], temperature=0.3, tools=[])
    _, options = read_request(request)
    assert options.lm.temperature == 0.3
    with pytest.raises(RequestError, match="doesn't support store True"):
        agent()[0].predict(request.model_copy(update={"store": True}))


def test_a_resource_repeats_the_request():
    fields = {"instructions": "Be brief.", "temperature": 0.3, "metadata": {"a": "b"}, "truncation": "auto"}
    _, options = read_request({"input": "?", "max_tool_calls": 2, "max_output_tokens": 9, **fields})
    response = Dialect("open_responses", echo=options.echo).response({"output": []})
    assert {name: response[name] for name in fields} == fields
    assert (response["max_tool_calls"], response["max_output_tokens"], response["store"]) == (2, 9, False)


def test_a_resource_repeats_the_request_of_another_agent():
    fields = {"instructions": "Be brief.", "temperature": 0.3, "metadata": {"a": "b"}, "truncation": "auto"}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    _, options = agent_request({"input": "?", "tools": [tool], "text": {"format": schema}, **fields})
    sent = {"output": [], "metadata": {"c": "d"}}
    response = Dialect("open_responses", echo=options.echo).response(sent)
    assert {name: response[name] for name in fields} == {**fields, "metadata": {"a": "b", "c": "d"}}
    assert response["tools"] == [{**tool, "description": None}]
    assert response["text"]["format"] == {**schema, "schema": None, "description": None, "strict": False}
    assert options.offered == {"f"}


def test_another_agent_s_request_is_not_dropped_either():
    request, _ = agent_request({"input": "?", "instructions": "Be brief.", "temperature": 0.1, "model": "x"})
    assert [item.model_dump()["role"] for item in request.input] == ["system", "user"]
    assert request.temperature == 0.1
    for name, value in (("max_tool_calls", 1), ("previous_response_id", "resp_1"), ("anything", 1)):
        with pytest.raises(RequestError, match=name) as refused:
            agent_request({"input": "?", name: value})
        assert refused.value.param == name
