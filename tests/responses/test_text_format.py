"""A client's schema in ``text.format`` fetches nothing, takes no time, and is refused if the outputs may not fit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest

import oneturn
from oneturn.errors import RequestError
from oneturn.testing import ScriptedLM, finish


class Card(pydantic.BaseModel):
    """A business card."""

    name: str
    age: int = 0


class Ask(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    counts: dict[str, int] = dspy.OutputField()
    card: Card = dspy.OutputField()
    anything: Any = dspy.OutputField()


OUTPUTS: dict[str, Any] = {
    "answer": "x" * 40 + "!",
    "counts": {"a": 1},
    "card": {"name": "Ann", "age": 3},
    "anything": {"x": "text"},
}


def respond(schema: dict[str, Any]) -> dict[str, Any]:
    program = oneturn.ReAct(Ask, tools=[])
    program.set_lm(ScriptedLM(finish(**OUTPUTS)))
    adapter = oneturn.ResponsesAdapter(program)
    body = {"input": "?", "text": {"format": {"type": "json_schema", "name": "it", "schema": schema}}}
    response = adapter.run(adapter.parse(body)).model_dump()
    answer: dict[str, Any] = json.loads(response["output"][-1]["content"][0]["text"])
    return answer


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def refused(schema: dict[str, Any]) -> str:
    with pytest.raises(RequestError) as error:
        respond(schema)
    assert (error.value.param or "").startswith("text.format")
    return str(error.value)


SLOW = "^(?:.|.)*\\x00$"  # exponential on any text of one line


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("address", ["file://{}", "http://127.0.0.1:9/S", "S", "#/components/S", "#"])
def test_a_reference_to_an_address_is_refused(address: str, beside: bool, tmp_path: Path):
    secret = tmp_path / "S"
    secret.write_text('{"enum": ["a secret"]}')
    reference: dict[str, Any] = {"$ref": address.format(secret)}
    wanted = {"anyOf": [reference, {"type": "string"}]} if beside else reference
    schema = {**of(answer=wanted), "$defs": {"S": {"type": "string"}}}
    if beside:  # the other option fits, and the reference is never followed
        assert respond(schema) == {"answer": OUTPUTS["answer"]}
    else:
        assert "a secret" not in refused(schema)


@pytest.mark.parametrize(
    "wanted",
    [
        {"anyOf": [{"pattern": SLOW}, {"type": "string"}]},
        {"anyOf": [{"type": "string", "format": "regex"}, {"allOf": [{"pattern": SLOW}]}, {"type": "string"}]},
    ],
)
def test_a_pattern_in_an_option_that_need_not_fit_is_never_matched(wanted: dict[str, Any]):
    assert respond(of(answer=wanted)) == {"answer": OUTPUTS["answer"]}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({**of(answer={"$ref": "#/$defs/S", "pattern": SLOW}), "$defs": {"S": {"type": "string"}}}, "not allowed"),
        (of(answer={"pattern": SLOW}), "a limit (pattern)"),
        ({"type": "object", "properties": {}, "additionalProperties": {"pattern": SLOW}}, "a limit (pattern)"),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}}, "is of type string"),
        (of(counts={"type": "object", "additionalProperties": {"type": "string"}}), "is of type integer"),
        (of(counts={"type": "object", "properties": {"a": {"type": "string"}}}), "'a' is of type integer"),
        (of(card={"type": "object", "additionalProperties": {"type": "string"}}), "is of type integer"),
        (of(anything={"properties": {"x": {"type": "integer"}}}), "may be of any type"),
        (of(anything={"items": {"type": "integer"}}), "may be of any type"),
    ],
)
def test_a_schema_that_the_outputs_may_not_fill_is_refused(schema: dict[str, Any], reason: str):
    assert reason in refused(schema)


@pytest.mark.parametrize(
    "wanted",
    [
        {"counts": {"type": "object", "additionalProperties": {"type": ["integer", "null"]}}},
        {"counts": {"type": "object", "properties": {"a": {"type": "number"}}}},
        {"card": {"type": "object", "properties": {"name": {}}, "additionalProperties": {"type": "integer"}}},
        {"card": {"$ref": "#/$defs/Card", "description": "A card."}},
        {"anything": {}},
        {"anything": True},
    ],
)
def test_a_schema_that_the_outputs_always_fill_is_honoured(wanted: dict[str, Any]):
    card = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    assert respond({**of(**wanted), "$defs": {"Card": card}}) == {name: OUTPUTS[name] for name in wanted}


def test_options_that_refer_to_options_are_refused_before_they_take_time():
    chain = {f"D{n}": {"anyOf": [{"$ref": f"#/$defs/D{n + 1}"}] * 3} for n in range(30)}
    definitions = {**chain, "D30": {"type": "integer"}}
    assert (
        "the agent's outputs don't fit" in refused({**of(answer={"$ref": "#/$defs/D0"}), "$defs": definitions}).lower()
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": [*range(100_000), "a"]},
        {"type": "object", "required": [*range(100_000), "a"]},
        {"dependentRequired": {"enum": [*range(100_000), "a"]}},
        {"properties": {"answer": {"dependencies": {"a": [*range(100_000), "a"]}}}},
        {"anyOf": [{}] * 4000},
    ],
)
@pytest.mark.parametrize("place", ["text", "tools"])
def test_a_large_schema_is_refused_before_it_takes_time(schema: dict[str, Any], place: str):
    given: dict[str, Any] = {"text": {"format": {"type": "json_schema", "name": "it", "schema": schema}}}
    if place == "tools":
        given = {"tools": [{"type": "function", "name": "f", "parameters": schema}]}
    program = oneturn.ReAct(Ask, tools=[])
    with pytest.raises(RequestError, match=r"more than (20 names|3000 JSON schemas)"):
        oneturn.ResponsesAdapter(program).parse({"input": "?", **given})
