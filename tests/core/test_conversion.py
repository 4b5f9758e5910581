"""Values as LMs write them, converted to JSON schemas, and what stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from oneturn.core.conversion import SchemaConverter

TEXT, NUMBER, WHOLE, FLAG, NULL = ({"type": kind} for kind in ("string", "number", "integer", "boolean", "null"))
TEXTS = {"type": "array", "items": TEXT}
LINE = {"type": "object", "properties": {"sku": TEXT, "count": WHOLE}, "required": ["sku"]}


@pytest.mark.parametrize(
    ("schema", "value", "converted"),
    [
        (WHOLE, "5", 5),
        (NUMBER, " 5.5 ", 5.5),
        (FLAG, "true", True),
        (FLAG, 0, False),
        (TEXT, 5, "5"),
        (TEXT, ["a"], '["a"]'),
        ({"type": "string", "enum": ["low", "high"]}, "'High'", "high"),
        ({"enum": [1, 2]}, "2", 2),
        ({"const": "refund"}, "Refund", "refund"),
        ({"anyOf": [WHOLE, NULL]}, "5", 5),
        ({"anyOf": [WHOLE, NULL]}, "null", None),
        ({"type": ["integer", "null"]}, "None", None),
        (TEXTS, '["a", "b"]', ["a", "b"]),
        (TEXTS, "['a']", ["a"]),
        (TEXTS, "a", ["a"]),
        (TEXTS, None, []),
        ({"type": "array", "items": LINE}, {"sku": "x"}, [{"sku": "x"}]),
        (LINE, '{"sku": 7, "count": "2"}', {"sku": "7", "count": 2}),
        (
            {"type": "array", "items": LINE},
            [{"sku": "a"}, '{"sku": "b", "count": "3"}'],
            [{"sku": "a"}, {"sku": "b", "count": 3}],
        ),
        ({"anyOf": [TEXTS, LINE]}, '{"sku": "x"}', {"sku": "x"}),
    ],
)
def test_a_value_that_does_not_fit_is_converted(schema: Any, value: Any, converted: Any):
    result = SchemaConverter().convert(value, schema)
    assert (result, type(result)) == (converted, type(converted))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (WHOLE, "1,000"),
        (WHOLE, 5.5),
        (NUMBER, "NaN"),
        (TEXT, "5"),
        (TEXT, None),
        ({"anyOf": [WHOLE, TEXT]}, "5"),
        (TEXTS, {"items": ["a"]}),
        ({"enum": ["low", "high"]}, "middle"),
        (LINE, "four"),
        ({"type": "whatever"}, "5"),
        ({"$ref": "https://example.com/x"}, "5"),
        (True, "5"),
    ],
)
def test_another_value_is_unchanged(schema: Any, value: Any):
    assert SchemaConverter().convert(value, schema) is value
