"""Type, description and default of the fields of signatures and of pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

import dspy
import pydantic
import pytest
from pydantic.fields import FieldInfo

from oneturn.core.fields import field_default, field_description, field_type

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
