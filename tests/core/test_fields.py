"""Type, description and default of the fields of signatures and of pydantic models."""

from __future__ import annotations

import datetime
import enum
import json
from typing import Annotated, Any

import dspy
import pydantic
import pytest
from pydantic.fields import FieldInfo

from oneturn.core.fields import dump_field, field_default, field_description, field_type, validate_field

Short = Annotated[str, pydantic.Field(max_length=3)]


class Sample(dspy.Signature):
    """Every kind of field."""

    plain: str = dspy.InputField()
    desc: str = dspy.InputField(desc="A text.")
    description: str = dspy.InputField(description="Another text.")
    empty: str = dspy.InputField(desc="")
    tags: list[str] = dspy.InputField(default_factory=list)
    short: Short = dspy.OutputField()


class Model(pydantic.BaseModel):
    plain: str
    description: str = pydantic.Field("x", description="A text.")
    desc: str = pydantic.Field("x", json_schema_extra={"examples": ["a"]})


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        (Sample.fields, "plain", None),
        (Sample.fields, "desc", "A text."),
        (Sample.fields, "description", "Another text."),
        (Sample.fields, "empty", ""),
        (Model.model_fields, "plain", None),
        (Model.model_fields, "description", "A text."),
        (Model.model_fields, "desc", None),
    ],
)
def test_only_a_declared_description_counts(fields: dict[str, FieldInfo], name: str, expected: str | None):
    assert field_description(name, fields[name]) == expected


def test_a_type_keeps_its_bounds():
    assert field_type(Sample.fields["plain"]) is str
    adapter: Any = pydantic.TypeAdapter(field_type(Sample.fields["short"]))
    with pytest.raises(pydantic.ValidationError, match="at most 3"):
        adapter.validate_python("long")


def test_each_default_is_a_new_one():
    field = Sample.fields["tags"]
    assert field_default(field) == []
    assert field_default(field) is not field_default(field)


class Region(enum.Enum):
    EU = "eu"
    US = "us"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (datetime.date, datetime.date(2026, 1, 2)),
        (Region, Region.EU),
        (dict[Region, set[int]], {Region.US: {1, 2}}),
        (dspy.Image, dspy.Image(url="data:image/png;base64,AAAA")),
        (list[dspy.File], [dspy.File(file_data="data:application/pdf;base64,AAAA")]),
        (dspy.History, dspy.History(messages=[{"question": "a", "answer": "b"}])),
        (Model, Model(plain="a")),
        (list[bytes] | None, [b"a"]),
    ],
)
def test_value_is_read_back_from_json(kind: Any, value: Any):
    field = FieldInfo(annotation=kind)
    assert validate_field(field, json.loads(json.dumps(dump_field(value)))) == value
