"""Values become JSON types."""

from __future__ import annotations

import enum

import numpy as np
import pydantic
import pytest

from oneturn.core.serialization import jsonable, plain


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
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.bool_(False), False),
        (np.array(["a", "b"]), ["a", "b"]),
        (Color.red, "r"),
        (Point(x=1), {"x": 1}),
        ([Color.red, (Point(x=1),)], ["r", [{"x": 1}]]),
    ],
)
def test_a_value_becomes_json(value: object, expected: object):
    result = jsonable(value)
    assert result == expected
    assert not isinstance(result, enum.Enum)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({Color.red: np.int64(2)}, {"r": 2}),
        ({True: [np.float32(0.5)], 3: np.array([1, 2])}, {"true": [0.5], "3": [1, 2]}),
        (np.array([float("nan"), 1.0]), [None, 1.0]),
    ],
)
def test_served_outputs_keep_their_keys_and_numbers(value: object, expected: object):
    assert plain(value) == expected
