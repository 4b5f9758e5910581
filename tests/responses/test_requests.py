"""The program's inputs, for every kind of request that the Responses protocol and MLflow accept."""

from __future__ import annotations

from typing import Annotated, Any

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentRequest

import oneturn
from oneturn.errors import RequestError
from oneturn.responses.request import program_inputs
from oneturn.testing import ScriptedLM, finish

PIXEL = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="


class Line(pydantic.BaseModel):
    item: str
    pieces: int


Talk = dspy.Signature(
    "question: str, history: dspy.History -> answer: str", custom_types={"dspy.History": dspy.History}
)


class Look(dspy.Signature):
    question: str = dspy.InputField()
    photo: dspy.Image = dspy.InputField()
    papers: list[dspy.File] = dspy.InputField(default=[])
    answer: str = dspy.OutputField()


class Price(dspy.Signature):
    lines: list[Line] = dspy.InputField()
    discount: Annotated[float, pydantic.Field(ge=0, le=1)] = dspy.InputField(default=0.0)
    total: float = dspy.OutputField()


class Chat(dspy.Signature):
    messages: list[dict[str, Any]] = dspy.InputField()
    answer: str = dspy.OutputField()


class WithSystemMessage(dspy.Signature):
    system_message: str = dspy.InputField(default="")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def inputs(
    signature: Any, *items: dict[str, Any], answer_field: str | None = "answer", **fields: Any
) -> dict[str, Any]:
    return program_inputs(signature, ResponsesAgentRequest(input=list(items), **fields), answer_field)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(value: str) -> dict[str, Any]:
    return {"type": "input_text", "text": value}


def assistant(value: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": value, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content, **fields}


def image(url: str = PIXEL) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url}


# ---- the conversation


NOTES = [
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look."}]},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "find", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "secret notes"},
]


def test_earlier_turns_are_the_history():
    values = inputs(Talk, user("How many?"), *NOTES, assistant("Four."), user("And in all?"))
    assert values["question"] == "And in all?"
    assert values["history"] == dspy.History(messages=[{"question": "How many?", "answer": "Four."}])


def test_a_first_question_has_an_empty_history():
    assert inputs(Talk, user("How many?"))["history"] == dspy.History(messages=[])


@pytest.mark.parametrize(
    ("items", "turns"),
    [
        ([user("a"), user("b"), assistant("12")], [{"question": "a\n\nb", "answer": "12"}]),
        ([user("a"), assistant("1"), assistant("2")], [{"question": "a", "answer": "1"}, {"answer": "2"}]),
        ([assistant("Hello!")], [{"answer": "Hello!"}]),
        ([user("a"), assistant("Tw", status="incomplete"), assistant("12")], [{"question": "a", "answer": "12"}]),
        ([user("a"), {"role": "assistant", "content": "plain"}], [{"question": "a", "answer": "plain"}]),
        ([user(text("a"), text("b")), assistant("12")], [{"question": "a\nb", "answer": "12"}]),
        ([{"role": "system", "content": "Be kind."}], []),
    ],
)
def test_earlier_turns_may_have_any_shape(items: list[Any], turns: list[Any]):
    assert inputs(Talk, *items, user("last"))["history"].messages == turns


def test_a_refusal_is_an_answer():
    refusal = {**assistant(""), "content": [{"type": "refusal", "refusal": "I won't."}]}
    assert inputs(Talk, user("a"), refusal, user("b"))["history"].messages == [{"question": "a", "answer": "I won't."}]


def test_requests_share_no_state():
    inputs(Talk, user("mine"), assistant("yours"), user("again"))
    assert inputs(Talk, user("another's")) == {"question": "another's", "history": dspy.History(messages=[])}


def test_system_and_developer_messages_fill_system_message():
    items = [
        {"role": "system", "content": "Be kind."},
        user("?"),
        {"role": "developer", "content": [text("Be brief.")]},
    ]
    assert inputs(WithSystemMessage, *items) == {"question": "?", "system_message": "Be kind.\nBe brief."}
    assert inputs(WithSystemMessage, user("?")) == {"question": "?"}


def test_a_messages_field_gets_the_complete_chat():
    values = inputs(Chat, {"role": "system", "content": "Be kind."}, user("a"), *NOTES[1:], assistant("b"), user("c"))
    assert [message["role"] for message in values["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert values["messages"][-1] == {"role": "user", "content": "c"}


def test_a_messages_field_accepts_text_only():
    with pytest.raises(RequestError, match="A content part of type 'input_image' isn't supported"):
        inputs(Chat, user(text("?"), image()))


# ---- images and files


def test_an_image_fills_the_image_field():
    values = inputs(Look, user(text("What is it?"), image()))
    assert values == {"question": "What is it?", "photo": dspy.Image(PIXEL)}


def test_files_fill_the_file_field():
    parts = [{"type": "input_file", "file_data": PDF, "filename": "a.pdf"}, {"type": "input_file", "file_id": "file-7"}]
    values = inputs(Look, user(text("?"), image(), *parts))
    assert values["papers"] == [dspy.File(file_data=PDF), dspy.File(file_id="file-7")]


def test_attachments_of_all_messages_of_the_question_count():
    paper = {"type": "input_file", "file_data": PDF}
    values = inputs(Look, user("before"), assistant("Yes?"), user(image()), user(paper), user(text("What is it?")))
    assert values == {"question": "What is it?", "photo": dspy.Image(PIXEL), "papers": [dspy.File(file_data=PDF)]}
    assert inputs(Look, user(text("Look."), image()), user("What is it?"))["question"] == "Look.\n\nWhat is it?"


def test_a_message_that_was_refused_ends_no_conversation():
    assert inputs(Talk, user(image()), user("In words: hi"))["question"] == "[image]\n\nIn words: hi"
    refused = user(text("?"), image("data:image/png;base64,AAAB"))
    assert inputs(Look, refused, user(text("This one."), image()))["photo"] == dspy.Image(PIXEL)
    items = [refused, user(image(), image()), assistant("Which?"), user("a")]
    assert inputs(Talk, *items)["history"].messages == [{"question": "?", "answer": "Which?"}]


@pytest.mark.parametrize("gap", [assistant("Tw", status="incomplete"), {"role": "assistant", "content": ""}, *NOTES])
def test_what_is_no_answer_does_not_end_a_question(gap: dict[str, Any]):
    values = inputs(Talk, user("a"), assistant("1"), user("b"), gap, user("c"))
    assert values["question"] == "b\n\nc"
    assert values["history"].messages == [{"question": "a", "answer": "1"}]


class Album(dspy.Signature):
    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    photos: list[dspy.Image] = dspy.InputField(default=[])
    answer: str = dspy.OutputField()


def test_the_history_has_the_images_of_earlier_turns():
    items = [user(text("What is it?"), image()), assistant("A cat."), user("What colour?")]
    asked = {"question": "What is it?", "photos": [dspy.Image(PIXEL)], "answer": "A cat."}
    assert inputs(Album, *items) == {"question": "What colour?", "history": dspy.History(messages=[asked])}
    program, lm = oneturn.ReAct(Album, tools=[]), ScriptedLM(*[finish(answer="A cat.")] * 2)
    program.set_lm(lm)
    for end in (1, 3):
        oneturn.ResponsesAdapter(program).predict(ResponsesAgentRequest(input=items[:end]))
    first, second = (request.messages for request in lm.requests)
    assert second[:2] == first, "the LM sees the image as it did then"
    assert inputs(Talk, *items)["history"].messages == [{"question": "What is it?", "answer": "A cat."}]


def test_images_of_earlier_turns_need_a_history():
    with pytest.raises(RequestError, match="has no input_image part, required by the field 'photo'"):
        inputs(Look, user(text("?"), image()), assistant("A cat."), user("And now?"))


# ---- fields


def test_a_signature_without_a_question_takes_custom_inputs_only():
    sent = {"lines": [{"item": "cup", "pieces": "2"}], "discount": 0.5}
    assert inputs(Price, custom_inputs=sent) == {"lines": [Line(item="cup", pieces=2)], "discount": 0.5}


def test_a_question_may_be_sent_in_custom_inputs():
    assert inputs(Talk, custom_inputs={"question": "How?"})["question"] == "How?"


REFUSED = {
    "takes no question": (Price, [user("hello")], {}, "This agent takes no question; send input=[] and custom_inputs"),
    "missing": (Price, [], {}, "custom_inputs has no 'lines', a required field of type list["),
    "wrong inside": (Price, [], {"lines": [{"item": "cup", "pieces": "x"}]}, "'lines.0.pieces' must be of type list["),
    "out of bounds": (
        Price,
        [],
        {"lines": [], "discount": 3},
        "'discount' must be of type float: Input should be less than or equal to 1.",
    ),
    "unknown": (Price, [], {"hue": 1}, "custom_inputs has an unknown field 'hue'; known: lines, discount."),
    "twice": (Talk, [user("a")], {"question": "b"}, "'question' is set in custom_inputs and in input; send it once."),
    "no question": (Talk, [assistant("a")], {}, "The request has no user message; send input="),
    "no text": (Look, [user(image())], {}, "The question has no text; send an input_text part"),
    "no field": (Talk, [user(text("?"), image())], {}, "A content part of type 'input_image' isn't supported: this"),
    "two images": (
        Look,
        [user(text("?"), image(), image())],
        {},
        "This agent takes one input_image, in 'photo'; a message has 2.",
    ),
    "a path": (Look, [user(text("?"), image("/etc/passwd"))], {}, "An input_image needs an image_url: an http(s)"),
    "no data": (
        Look,
        [user(text("?"), {"type": "input_file", "filename": "a.pdf"})],
        {},
        "An input_file needs file_data (a data: URI) or a file_id",
    ),
    "no data: URI": (
        Look,
        [user(text("?"), {"type": "input_file", "file_data": "JVBERi0="})],
        {},
        "The file_data of an input_file must be a data: URI",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_request_is_rejected_with_the_reason(case: str):
    signature, items, custom_inputs, message = REFUSED[case]
    with pytest.raises(RequestError) as refused:
        inputs(signature, *items, custom_inputs=custom_inputs)
    assert str(refused.value).startswith(message)


# ---- anything that MLflow lets through


_texts = st.text(max_size=8)
_parts = st.one_of(
    st.builds(text, _texts),
    st.builds(image, st.sampled_from([PIXEL, "https://x.test/a.png", "file:///etc/passwd", ""])),
    st.fixed_dictionaries({"type": st.just("input_file")}, optional={"file_data": st.sampled_from([PDF, "x"])}),
)
_messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "developer"]),
        "content": st.one_of(_texts, st.lists(_parts, max_size=3)),
    }
)
_items = st.lists(st.one_of(_messages, st.builds(assistant, _texts), st.sampled_from(NOTES)), max_size=6)
_custom = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(["question", "lines", "discount", "messages", "x"]), _texts, max_size=2)
)


@given(signature=st.sampled_from([Talk, Look, Price, Chat, WithSystemMessage]), items=_items, custom_inputs=_custom)
def test_any_request_is_parsed_or_rejected(signature: Any, items: list[Any], custom_inputs: Any):
    try:
        values = inputs(signature, *items, custom_inputs=custom_inputs)
    except RequestError:
        return
    assert set(values) <= set(signature.input_fields)
    assert {name for name, field in signature.input_fields.items() if field.is_required()} <= set(values)


MANY = 200_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": [{}] * MANY}, "input.0."),
        ({"input": [{"role": "user", "content": [1] * MANY}]}, "values are invalid"),
        ({"input": "?", "include": [1] * MANY}, "include"),
        ({"input": "?", "metadata": {str(n): n for n in range(MANY)}}, "values are invalid"),
        ({"input": "?", "custom_inputs": {"numbers": ["x"] * MANY}}, "values are invalid"),
    ],
)
def test_many_invalid_values_are_one_short_error(fields: dict[str, Any], message: str):
    program = oneturn.ReAct("question, numbers: list[int] -> answer", tools=[])
    with pytest.raises(RequestError) as refused:
        oneturn.ResponsesAdapter(program).parse({"custom_inputs": {"numbers": []}, **fields})
    assert message in str(refused.value)
    assert len(str(refused.value)) < 400
