"""Values become JSON types."""

from __future__ import annotations

import enum

import numpy as np
import pydantic
import pytest

from oneturn.core.serialization import jsonable


class Color(str, enum.Enum):
    red = "r"


class Point(pydantic.BaseModel):
    x: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("text", "text"),
        (1.5, 1.5),
        (np.float64(1.5), 1.5),
        (Color.red, "r"),
        (Point(x=1), {"x": 1}),
        ([Color.red, (Point(x=1),)], ["r", [{"x": 1}]]),
    ],
)
def test_a_value_becomes_json(value: object, expected: object):
    result = jsonable(value)
    assert result == expected
    assert not isinstance(result, enum.Enum)
