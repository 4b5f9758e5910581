"""Outputs as LMs write them, converted to the declared types, and what stays refused."""

from __future__ import annotations

import datetime
import enum
from typing import Any, Literal

import dspy
import pydantic
import pytest

from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.outputs import validate_outputs
from oneturn.programs.react.schema import StepSchema


class Colour(enum.Enum):
    RED = "crimson"
    BLUE = "navy"


class Money(pydantic.BaseModel):
    amount: float
    currency: str = "EUR"


class Person(pydantic.BaseModel):
    name: str
    money: Money | None = None
    favourite: Colour = Colour.RED


def convert(kind: Any, *value: Any) -> Any:
    """The value as an output of the type; with no value, the output is left out."""
    model = pydantic.create_model("Outputs", value=(kind, ...))
    return validate_outputs(model, {"value": value[0]} if value else {})["value"]


@pytest.mark.parametrize(
    ("kind", "value", "converted"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (float, "5.5", 5.5),
        (bool, "yes", True),
        (bool, "False", False),
        (str, 5, "5"),
        (str, ["a"], '["a"]'),
        (Colour, "navy", Colour.BLUE),
        (Colour, "BLUE", Colour.BLUE),
        (Colour, "blue", Colour.BLUE),
        (Colour, "Colour.BLUE", Colour.BLUE),
        (Colour | None, "Blue", Colour.BLUE),
        (list[Colour], ["RED", "navy"], [Colour.RED, Colour.BLUE]),
        (Literal["low", "high"], "High", "high"),
        (Literal["low", "high"], "'low'", "low"),
        (datetime.date, "2026-01-02", datetime.date(2026, 1, 2)),
        (datetime.date, "2026-01-02T00:00:00Z", datetime.date(2026, 1, 2)),
        (list[str], "a", ["a"]),
        (list[str], '["a", "b"]', ["a", "b"]),
        (list[str], None, []),
        (list, None, []),
        (set[str], None, set()),
        (dict[str, int], None, {}),
        (list[Money], {"amount": 4}, [Money(amount=4)]),
        (list[Money], ['{"amount": "4"}'], [Money(amount=4)]),
        (dict[str, int], '{"a": "1"}', {"a": 1}),
        (Money, '```json\n{"amount": 4}\n```', Money(amount=4)),
        (Person, {"name": "a", "money": '{"amount": 4}', "favourite": "blue"}, None),
        (int | None, "null", None),
        (int | None, "5", 5),
        (tuple[int, str], ["1", 2], (1, "2")),
        (Money | Person, {"name": "a"}, Person(name="a")),
    ],
)
def test_values_are_converted(kind: Any, value: Any, converted: Any):
    expected = Person(name="a", money=Money(amount=4), favourite=Colour.BLUE) if kind is Person else converted
    assert convert(kind, value) == expected
    assert type(convert(kind, value)) is type(expected)


def test_an_optional_output_may_be_left_out():
    assert convert(int | None) is None


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "1,000", "value: Input should be a valid integer"),
        (int, 5.5, "value: Input should be a valid integer"),
        (Colour, "green", "value: Input should be 'crimson' or 'navy'"),
        (Literal["low", "high"], "middle", "value: Input should be 'low' or 'high'"),
        (list[str], {"items": ["a"]}, "value: Input should be a valid list"),
        (Money, {"currency": "EUR"}, "value.amount: Field required"),
        (Money, "four euros", "value: Input should be"),
        (Person, {"name": "a", "money": {"amount": "x"}}, "value.money.amount: Input should be a valid number"),
    ],
)
def test_other_values_are_refused_with_their_place(kind: Any, value: Any, message: str):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")) as error:
        convert(kind, value)
    assert "\n" not in str(error.value)


class Item(pydantic.BaseModel):
    name: str
    pieces: int = 1


class Order(dspy.Signature):
    """Read an order."""

    text: str = dspy.InputField()
    one: Item | None = dspy.OutputField()
    many: list[Item] | None = dspy.OutputField()
    either: Item | Person = dspy.OutputField()
    by_name: dict[str, Item] = dspy.OutputField()


def test_a_null_that_leaves_an_optional_property_out_is_removed_inside_unions():
    schema = StepSchema(Order, {}, thoughts=False)
    item = {"name": "cup", "pieces": None}
    given = {"one": item, "many": [item], "either": item, "by_name": {}}
    cup = Item(name="cup")
    assert schema.validate(schema.without_nulls("finish", given), SeenValues()) == {
        "one": cup,
        "many": [cup],
        "either": cup,
        "by_name": {},
    }
    person = {"name": "Ann", "money": {"amount": 3, "currency": None}, "favourite": None}
    values = schema.validate(schema.without_nulls("finish", {**given, "one": None, "either": person}), SeenValues())
    assert values["one"] is None
    assert values["either"] == Person(name="Ann", money=Money(amount=3))
