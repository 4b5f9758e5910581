"""The three ways to ask an LM: which is taken, what each tells the LM, and what happens when one is refused."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import dspy
import pydantic
import pytest
from dspy.utils.exceptions import LMError

from oneturn import Citation, ReAct, Seen
from oneturn.errors import ProgramError
from oneturn.lm import capabilities
from oneturn.lm.capabilities import best_tool_calling
from oneturn.programs.react.strict_schema import function_parameters, strict_schema
from oneturn.testing import ScriptedLM, call, finish
from tests.programs.react.chat_stub import ChatStub, calls, chat_stub

STREAMING = pytest.mark.parametrize("streaming", [False, True])


class Colour(enum.Enum):
    RED = "crimson"
    BLUE = "navy"


class Person(pydantic.BaseModel):
    full_name: str = pydantic.Field(description="as in the passport")
    age: int | None = None


Painted = dspy.Signature(
    "question -> answer, colour: Colour, person: Person", custom_types={"Colour": Colour, "Person": Person}
)
PAINTED = finish(answer="ok", colour="navy", person={"full_name": "A", "age": None})


def look_up(item: str, limit: int = 30) -> str:
    """Look up an item."""
    return f"{item} is here"


@pytest.fixture(autouse=True)
def nothing_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_refused", set())


def run(stub: ChatStub, program: ReAct, streaming: bool, model: str = "openai/gpt-4o-mini") -> None:
    program.set_lm(stub.lm(model))
    if streaming:
        list(program.steps(question="?"))
    else:
        program(question="?")


def formats(stub: ChatStub) -> list[str | None]:
    """What each request asked for."""
    return [
        "tools" if "tools" in body else body.get("response_format", {}).get("type", "text") for body in stub.requests
    ]


def test_auto_chooses_by_what_the_lm_can_do():
    def engine(**declared: Any) -> dspy.LM:
        return dspy.LM("own/lm", engine=type("Engine", (), {**declared, "complete": print})())

    assert best_tool_calling(ScriptedLM()) == "schema"
    assert best_tool_calling(ScriptedLM(response_schema=False)) == "text"
    assert best_tool_calling(dspy.LM("openai/gpt-4o-mini", api_key="k")) == "native"
    assert best_tool_calling(dspy.LM("openai/a-name-of-my-own", api_key="k")) == "text"
    formats = frozenset({"response_format"})
    assert best_tool_calling(engine(supported_params=formats, supports_response_schema=True)) == "schema"
    tools = frozenset({"tools", "response_format"})
    assert best_tool_calling(engine(supported_params=tools, supports_function_calling=True)) == "native"


def test_an_unknown_way_is_refused():
    with pytest.raises(ProgramError, match="tool_calling is 'json'; it must be one of 'auto', 'native'"):
        ReAct("question -> answer", tools=[], tool_calling="json")


@STREAMING
@pytest.mark.parametrize("way", ["schema", "text"])
def test_without_functions_the_prompt_tells_all_that_the_schema_would(way: str, streaming: bool):
    with chat_stub(json.dumps(call("look_up", item="x")), json.dumps(PAINTED)) as stub:
        run(stub, ReAct(Painted, tools=[look_up], tool_calling=way), streaming)
    prompt = stub.requests[0]["messages"][0]["content"]
    for shown in ('"crimson" | "navy"', "full_name: string", "as in the passport", "limit: integer = 30"):
        assert shown in prompt
    assert formats(stub)[0] == {"schema": "json_schema", "text": "json_object"}[way]
    assert stub.requests[0].get("response_format") == stub.requests[1].get("response_format")


@STREAMING
def test_the_schema_for_an_api_is_strict_and_the_same_at_each_step(streaming: bool):
    def find(code: Annotated[str, Seen(r"[A-Z]-\d")]) -> list[str]:
        """Find."""
        return [code]

    signature = dspy.Signature("question -> answer, sources: list[Citation]", custom_types={"Citation": Citation})
    steps = [call("find", code="A-1"), call("find", code="A-2"), finish(answer="x", sources=[])]
    with chat_stub(*map(json.dumps, steps)) as stub:
        run(stub, ReAct(signature, tools=[find], tool_calling="schema", max_iters=3), streaming)
    sent = [body["response_format"] for body in stub.requests]
    assert sent == [sent[0]] * 3
    assert sent[0]["json_schema"]["strict"] is True
    assert list(refused_by_strict_mode(sent[0]["json_schema"]["schema"])) == []
    assert "has not been seen" in json.dumps(stub.requests[1]["messages"][-1])
    assert "Call finish now" in stub.requests[2]["messages"][-1]["content"]


def test_an_lm_under_a_grammar_gets_a_narrowed_schema_and_the_short_prompt():
    lm = ScriptedLM(call("look_up", item="x"), finish(**PAINTED["tool_call"]["args"]))
    program = ReAct(Painted, tools=[look_up], max_iters=2)
    with dspy.context(lm=lm):
        program(question="?")
    assert [request.offered for request in lm.requests] == [["look_up", "finish"], ["finish"]]
    assert "as in the passport" not in lm.requests[0].messages[0]["content"]


@STREAMING
def test_a_refusal_falls_back_and_is_remembered_for_what_was_refused(streaming: bool):
    def check(body: dict[str, Any]) -> str | None:
        if "Painted" in json.dumps(body.get("tools", [])) or "colour" in json.dumps(body.get("tools", [])):
            return "Invalid schema for function 'finish'"
        return None

    reply = json.dumps(PAINTED)
    plain = calls(("finish", {"answer": "x"}))
    with chat_stub(reply, reply, plain, check=check) as stub:
        run(stub, ReAct(Painted, tools=[]), streaming)
        assert formats(stub) == ["tools", "tools", "json_schema"], "the second tools are in the narrow dialect"
        run(stub, ReAct(Painted, tools=[]), streaming)
        run(stub, ReAct("question -> answer", tools=[]), streaming)
        assert formats(stub)[3:] == ["json_schema", "tools"]


@STREAMING
def test_a_refused_choice_is_weakened_and_the_prompt_asks_for_finish(streaming: bool):
    def check(body: dict[str, Any]) -> str | None:
        return (
            "Thinking may not be enabled when tool_choice forces tool use." if body["tool_choice"] != "auto" else None
        )

    done = calls(("finish", {"answer": "x", "sure": True}))
    with chat_stub(calls(("look_up", {"item": "x"})), done, check=check) as stub:
        run(stub, ReAct("question -> answer, sure: bool", tools=[look_up], max_iters=2), streaming)
    assert [body["tool_choice"] for body in stub.requests] == ["required", "auto", "auto"]
    assert "Call finish now" in stub.requests[-1]["messages"][-1]["content"]


@STREAMING
def test_an_lm_without_any_of_it_is_asked_by_the_prompt_alone(streaming: bool):
    def check(body: dict[str, Any]) -> str | None:
        refused = {"tools", "response_format"}.intersection(body)
        return f"{refused.pop()} is not supported" if refused else None

    with chat_stub(json.dumps(finish(answer="x")), check=check) as stub:
        run(stub, ReAct("question -> answer", tools=[look_up]), streaming)
    assert formats(stub)[-1] == "text"


@STREAMING
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "registry.ollama.ai/library/gemma:2b does not support tools"),
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        (404, "No endpoints found that support tool use."),
        (422, "body.tools: Extra inputs are not permitted"),
        (500, "tools param requires --jinja flag"),
        (501, "tools are not supported"),
    ],
)
def test_servers_refuse_tools_in_many_words(status: int, message: str, streaming: bool):
    def check(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return (status, {"message": message}) if "tools" in body else None

    with chat_stub(json.dumps(finish(answer="x")), check=check) as stub:
        run(stub, ReAct("question -> answer", tools=[look_up]), streaming)
    assert formats(stub)[-1] == "json_schema"


@STREAMING
@pytest.mark.parametrize(("way", "code"), [("native", "tool_use_failed"), ("schema", "json_validate_failed")])
def test_a_reply_that_the_server_calls_invalid_is_asked_for_again(way: str, code: str, streaming: bool):
    def check(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        error = {"message": "Failed to call a function. See 'failed_generation'.", "code": code}
        return (400, error) if len(stub.requests) == 1 else None

    done = calls(("finish", {"answer": "x"})) if way == "native" else json.dumps(finish(answer="x"))
    with chat_stub(done, check=check) as stub:
        run(stub, ReAct("question -> answer", tools=[look_up], tool_calling=way), streaming)
    assert formats(stub) == [{"native": "tools", "schema": "json_schema"}[way]] * 2
    assert capabilities._refused == set()


@pytest.mark.parametrize(("status", "message"), [(401, "a bad key for tools"), (500, "the tools are out of order")])
def test_other_errors_that_mention_tools_are_errors(status: int, message: str):
    def check(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return status, {"message": message}

    with chat_stub(check=check) as stub, pytest.raises(LMError, match=message):
        run(stub, ReAct("question -> answer", tools=[look_up]), False)
    assert len(stub.requests) == 1


@STREAMING
@pytest.mark.parametrize("way", ["schema", "text"])
def test_function_calls_that_nobody_asked_for_are_steps(way: str, streaming: bool):
    look, done = calls(("look_up", {"item": "x"})), calls(("finish", {"answer": "x"}))
    with chat_stub(look, done) as stub:
        run(stub, ReAct("question -> answer", tools=[look_up], tool_calling=way), streaming)
    assert stub.requests[-1]["messages"][-1]["content"] == "x is here"


def test_another_refusal_is_an_error():
    with chat_stub(check=lambda body: "temperature is not supported") as stub, pytest.raises(Exception, match="temp"):
        run(stub, ReAct("question -> answer", tools=[look_up]), False)
    assert len(stub.requests) == 1


@STREAMING
def test_an_unreadable_reply_stays_in_the_chat_and_roles_alternate(streaming: bool):
    program = ReAct("question -> answer, sure: bool", tools=[look_up], tool_calling="text")
    program.step.demos = [dspy.Example(question="Rum?", answer="8", sure=True).with_inputs("question")]
    done = finish(answer="x", sure=True)
    with chat_stub("Let me think.", json.dumps(call("look_up", item="x")), json.dumps(done)) as stub:
        run(stub, program, streaming)
    for body in stub.requests:
        roles = [message["role"] for message in body["messages"]]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)][: len(roles)]
    reply, shown = stub.requests[1]["messages"][-2:]
    assert reply == {"role": "assistant", "content": "Let me think."}
    assert shown["content"].startswith("Error: that was not one JSON object")


def test_a_prompt_tells_the_form_of_dates():
    program = ReAct(
        dspy.Signature("question -> answer, due: datetime.date", custom_types={"datetime": datetime}),
        tools=[],
        tool_calling="text",
    )
    with chat_stub(json.dumps(finish(answer="today", due="2026-01-31"))) as stub:
        run(stub, program, False)
    assert "due: string (date)" in stub.requests[0]["messages"][0]["content"]


# ---- schemas


class Node(pydantic.BaseModel):
    name: str = "root"
    pair: tuple[int, str] = (1, "a")
    tags: set[str] = set()
    either: int | str = 3
    children: list[Node] = []


def schema_of(kind: Any) -> dict[str, Any]:
    return pydantic.create_model("Outputs", value=(kind, ...)).model_json_schema()


def refused_by_strict_mode(schema: Any, path: str = "$") -> Iterator[str]:
    """What OpenAI's documentation of structured outputs rules out."""
    if isinstance(schema, list):
        for item in schema:
            yield from refused_by_strict_mode(item, path)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            yield f"{path} is open"
        if set(schema["required"]) != set(schema["properties"]):
            yield f"{path} has optional properties"
    words = {"default", "oneOf", "allOf", "prefixItems", "uniqueItems"} & set(schema)
    yield from (f"{path} has {word}" for word in words)
    if schema.get("format") in ("seen", "source-id"):
        yield f"{path} has a format of its own"
    for key in ("properties", "$defs"):
        for name, inner in schema.get(key, {}).items():
            yield from refused_by_strict_mode(inner, f"{path}.{name}")
    for key in ("items", "anyOf"):
        yield from refused_by_strict_mode(schema.get(key), f"{path}.{key}")


def test_a_strict_schema_closes_objects_and_makes_optional_fields_nullable():
    schema, strict = strict_schema(schema_of(Node))
    assert (strict, list(refused_by_strict_mode(schema))) == (True, [])
    assert schema["$defs"]["Node"]["properties"]["name"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}


@pytest.mark.parametrize("kind", [dict[str, int], Any, list[Any], dict])
def test_open_types_switch_strict_mode_off(kind: Any):
    assert strict_schema(schema_of(kind))[1] is False


def test_the_narrow_dialect_has_no_references_and_unions():
    text = json.dumps(function_parameters(schema_of(Node | None), narrow=True))
    for word in ("$ref", "$defs", "anyOf", "oneOf", "prefixItems", '"default"', "uniqueItems"):
        assert word not in text
    assert "default: 'root'" in text


class Refund(pydantic.BaseModel):
    kind: Literal["refund"]
    cents: int = pydantic.Field(description="Without\nshipping.")


class Exchange(pydantic.BaseModel):
    kind: Literal["exchange"]
    sku: str


REFUND, EXCHANGE = '{kind: "refund", cents: integer}', '{kind: "exchange", sku: string}'
NODE = (
    'Node, type: {name: string = "root", pair: [integer, string] = [1, "a"], tags: list of string = [], '
    "either: integer | string = 3, children: list of Node = []}"
)


@pytest.mark.parametrize(
    ("kind", "narrow"),
    [
        (
            Refund | Exchange | None,
            {"type": "object", "description": f"type: {REFUND} | {EXCHANGE}; cents: Without shipping."},
        ),
        (dict[str, Exchange], {"type": "object", "description": f"type: object of {EXCHANGE} values"}),
        (dict[str, Any], {"type": "object"}),
        (float | Literal["on request"], {"type": "string", "description": 'type: number | "on request"'}),
        (Literal["a", "b"] | str, {"type": "string", "description": 'type: "a" | "b" | string'}),
        (int | float, {"type": "number"}),
        (
            list[int] | list[str],
            {"type": "array", "items": {"type": "string"}, "description": "type: list of integer | list of string"},
        ),
        (
            tuple[int, str],
            {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 2,
                "maxItems": 2,
                "description": "type: [integer, string]",
            },
        ),
        (Annotated[str, pydantic.Field(pattern="^M-")], {"type": "string", "description": "pattern: ^M-"}),
        (
            Annotated[int, pydantic.Field(gt=0, le=9)],
            {"type": "integer", "maximum": 9, "description": "exclusiveMinimum: 0"},
        ),
        (Any, {"type": "string", "description": "any value, as JSON text"}),
        (list[Any], {"type": "array", "items": {"type": "string", "description": "any value, as JSON text"}}),
        (datetime.date, {"type": "string", "description": "format: date"}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (Literal[1, 2], {"type": "integer", "description": "type: 1 | 2"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
    ],
)
def test_the_narrow_dialect_tells_what_it_has_no_form_for(kind: Any, narrow: dict[str, Any]):
    assert function_parameters(schema_of(kind), narrow=True)["properties"]["value"] == narrow


def test_the_narrow_dialect_closes_no_object():
    schema = schema_of(Refund | Exchange | list[Node])
    assert "additionalProperties" in json.dumps(function_parameters(schema))
    assert "additionalProperties" not in json.dumps(function_parameters(schema, narrow=True))


def test_the_narrow_dialect_tells_a_recursive_model():
    node = function_parameters(schema_of(Node), narrow=True)["properties"]["value"]["properties"]
    assert node["children"]["items"] == {"type": "object", "description": NODE}
    assert node["either"] == {"type": "string", "description": "default: 3 (type: integer | string)"}


def test_a_list_that_may_be_null_keeps_its_items():
    schema = {"properties": {"tags": {"type": ["array", "null"], "items": {"type": "string"}, "description": "Tags."}}}
    tags = {narrow: function_parameters(schema, narrow)["properties"]["tags"] for narrow in (False, True)}
    items = {"type": "array", "items": {"type": "string"}}
    assert tags == {
        False: {"anyOf": [items, {"type": "null"}], "description": "Tags."},
        True: {**items, "description": "Tags."},
    }
