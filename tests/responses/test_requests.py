"""What a program is asked, for every kind of input that the Responses protocol and MLflow let through."""

from __future__ import annotations

from typing import Annotated, Any

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.errors import RequestError
from oneturn.responses.request import program_inputs

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


class Told(dspy.Signature):
    system_message: str = dspy.InputField(default="")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def inputs(
    signature: Any, *items: dict[str, Any], answer_field: str | None = "answer", **fields: Any
) -> dict[str, Any]:
    return program_inputs(signature, ResponsesAgentRequest(input=list(items), **fields), answer_field)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(said: str) -> dict[str, Any]:
    return {"type": "input_text", "text": said}


def assistant(said: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": said, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content, **fields}


def image(url: str = PIXEL) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url}


# ---- the conversation


NOTES = [
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look."}]},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "find", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "secret notes"},
]


def test_what_came_before_is_the_history():
    found = inputs(Talk, user("How many?"), *NOTES, assistant("Four."), user("And in all?"))
    assert found["question"] == "And in all?"
    assert found["history"] == dspy.History(messages=[{"question": "How many?", "answer": "Four."}])


def test_a_first_question_has_an_empty_history():
    assert inputs(Talk, user("How many?"))["history"] == dspy.History(messages=[])


@pytest.mark.parametrize(
    ("items", "turns"),
    [
        ([user("a"), user("b")], [{"question": "a"}, {"question": "b"}]),
        ([assistant("Hello!"), user("a")], [{"answer": "Hello!"}, {"question": "a"}]),
        ([user("a"), assistant("Tw", status="incomplete"), assistant("12")], [{"question": "a", "answer": "12"}]),
        ([user("a"), {"role": "assistant", "content": "plain"}], [{"question": "a", "answer": "plain"}]),
        ([user(text("a"), text("b"))], [{"question": "a\nb"}]),
        ([{"role": "system", "content": "Be kind."}], []),
    ],
)
def test_earlier_turns_may_be_of_any_shape(items: list[Any], turns: list[Any]):
    assert inputs(Talk, *items, user("last"))["history"].messages == turns


def test_a_refusal_is_an_answer_too():
    refusal = {**assistant(""), "content": [{"type": "refusal", "refusal": "I won't."}]}
    assert inputs(Talk, user("a"), refusal, user("b"))["history"].messages == [{"question": "a", "answer": "I won't."}]


def test_nothing_of_one_request_is_in_the_next():
    inputs(Talk, user("mine"), assistant("yours"), user("again"))
    assert inputs(Talk, user("another's")) == {"question": "another's", "history": dspy.History(messages=[])}


def test_system_and_developer_messages_go_into_the_field_for_them():
    items = [
        {"role": "system", "content": "Be kind."},
        user("?"),
        {"role": "developer", "content": [text("Be brief.")]},
    ]
    assert inputs(Told, *items) == {"question": "?", "system_message": "Be kind.\nBe brief."}
    assert inputs(Told, user("?")) == {"question": "?"}


def test_a_field_for_messages_gets_the_whole_chat():
    found = inputs(Chat, {"role": "system", "content": "Be kind."}, user("a"), *NOTES[1:], assistant("b"), user("c"))
    assert [message["role"] for message in found["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert found["messages"][-1] == {"role": "user", "content": "c"}


def test_a_chat_reads_text_only():
    with pytest.raises(RequestError, match="A content part of type 'input_image' can't be answered"):
        inputs(Chat, user(text("?"), image()))


# ---- images and files


def test_an_image_goes_into_the_field_for_it():
    found = inputs(Look, user(text("What is it?"), image()))
    assert found == {"question": "What is it?", "photo": dspy.Image(PIXEL)}


def test_files_go_into_the_field_for_them():
    parts = [{"type": "input_file", "file_data": PDF, "filename": "a.pdf"}, {"type": "input_file", "file_id": "file-7"}]
    found = inputs(Look, user(text("?"), image(), *parts))
    assert found["papers"] == [dspy.File(file_data=PDF, filename="a.pdf"), dspy.File(file_id="file-7")]


def test_images_of_earlier_turns_are_not_the_question_s():
    with pytest.raises(RequestError, match="lacks input_image parts, for the field 'photo'"):
        inputs(Look, user(text("?"), image()), assistant("A cat."), user("And now?"))


# ---- fields


def test_a_signature_without_a_question_takes_its_fields_alone():
    sent = {"lines": [{"item": "cup", "pieces": "2"}], "discount": 0.5}
    assert inputs(Price, custom_inputs=sent) == {"lines": [Line(item="cup", pieces=2)], "discount": 0.5}


def test_a_question_may_be_sent_as_a_field():
    assert inputs(Talk, custom_inputs={"question": "How?"})["question"] == "How?"


REFUSED = {
    "takes no question": (Price, [user("hello")], {}, "This agent takes no question; send input=[], and its fields in"),
    "missing": (Price, [], {}, "custom_inputs lacks 'lines', of type list[tests.responses.test_requests.Line]."),
    "wrong inside": (Price, [], {"lines": [{"item": "cup", "pieces": "x"}]}, "'lines.0.pieces' must be of type list["),
    "out of bounds": (
        Price,
        [],
        {"lines": [], "discount": 3},
        "'discount' must be of type float: Input should be less than or equal to 1.",
    ),
    "unknown": (Price, [], {"hue": 1}, "custom_inputs has an unknown field 'hue'; known: lines, discount."),
    "twice": (Talk, [user("a")], {"question": "b"}, "'question' stands in custom_inputs and in input; send it once."),
    "no question": (Talk, [assistant("a")], {}, "The request has no user message; send input="),
    "an empty message": (Look, [user(image())], {}, "The request has no user message; send input="),
    "no field": (Talk, [user(text("?"), image())], {}, "A content part of type 'input_image' can't be answered: this"),
    "two images": (Look, [user(text("?"), image(), image())], {}, "This agent takes one input_image, in 'photo'; the"),
    "a path": (Look, [user(text("?"), image("/etc/passwd"))], {}, "An input_image needs its image_url: an http(s)"),
    "no data": (
        Look,
        [user(text("?"), {"type": "input_file", "filename": "a.pdf"})],
        {},
        "An input_file needs its file_data (a data: URI) or a file_id",
    ),
    "no data: URI": (
        Look,
        [user(text("?"), {"type": "input_file", "file_data": "JVBERi0="})],
        {},
        "An input_file's file_data must be a data: URI",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_used_is_named(case: str):
    signature, items, custom_inputs, message = REFUSED[case]
    with pytest.raises(RequestError) as refused:
        inputs(signature, *items, custom_inputs=custom_inputs)
    assert str(refused.value).startswith(message)


# ---- anything that MLflow lets through


_said = st.text(max_size=8)
_parts = st.one_of(
    st.builds(text, _said),
    st.builds(image, st.sampled_from([PIXEL, "https://x.test/a.png", "file:///etc/passwd", ""])),
    st.fixed_dictionaries({"type": st.just("input_file")}, optional={"file_data": st.sampled_from([PDF, "x"])}),
)
_messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "developer"]),
        "content": st.one_of(_said, st.lists(_parts, max_size=3)),
    }
)
_items = st.lists(st.one_of(_messages, st.builds(assistant, _said), st.sampled_from(NOTES)), max_size=6)
_custom = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(["question", "lines", "discount", "messages", "x"]), _said, max_size=2)
)


@given(signature=st.sampled_from([Talk, Look, Price, Chat, Told]), items=_items, custom_inputs=_custom)
def test_any_request_is_understood_or_refused_by_name(signature: Any, items: list[Any], custom_inputs: Any):
    try:
        found = inputs(signature, *items, custom_inputs=custom_inputs)
    except RequestError:
        return
    assert set(found) <= set(signature.input_fields)
    assert {name for name, field in signature.input_fields.items() if field.is_required()} <= set(found)
