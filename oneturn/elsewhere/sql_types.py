"""Types of Databricks SQL: as the LM is told of them, and as values of a statement's parameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from databricks.sdk.service.catalog import FunctionParameterInfo

_PLAIN: dict[str, dict[str, Any]] = {
    **{key: {"type": "integer"} for key in ["BYTE", "SHORT", "INT", "INTEGER", "LONG"]},
    **{key: {"type": "number"} for key in ["FLOAT", "DOUBLE", "DECIMAL"]},
    "BOOLEAN": {"type": "boolean"},
    "DATE": {"type": "string", "format": "date"},
    **{key: {"type": "string", "format": "date-time"} for key in ["TIMESTAMP", "TIMESTAMP_NTZ"]},
    "ARRAY": {"type": "array"},
    **{key: {"type": "object"} for key in ["MAP", "STRUCT"]},
}
_NESTED = ("ARRAY", "MAP", "STRUCT")


def json_schema(parameter: FunctionParameterInfo) -> dict[str, Any]:
    """The JSON schema of a function's parameter, its comment as description."""
    try:
        spark = json.loads(parameter.type_json or "null")
    except ValueError:
        spark = None
    found = _of_spark(spark.get("type")) if isinstance(spark, dict) else {}
    schema = found or dict(_PLAIN.get(parameter.type_name.value, {"type": "string"}))
    return {"description": parameter.comment, **schema} if parameter.comment else schema


def marker(parameter: FunctionParameterInfo, name: str) -> tuple[str, str | None]:
    """How a statement takes a value, and the type that the API is told: nested ones travel as JSON."""
    kind = parameter.type_name.value
    if kind in _NESTED:
        text = parameter.type_text.replace("\\", "\\\\").replace("'", "\\'")
        return f"from_json(:{name}, '{text}')", "STRING"
    if kind == "VARIANT":
        return f"parse_json(:{name})", "STRING"
    if kind == "BINARY":
        return f"unbase64(:{name})", "STRING"
    return f":{name}", parameter.type_text.upper()


def parameter_value(value: Any) -> str | None:
    """A value as the API takes it: text, or nothing for null."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _of_spark(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type as Spark writes it in JSON; empty for one that it doesn't tell."""
    if isinstance(kind, str):
        name = kind.partition("(")[0].upper()
        return dict(_PLAIN.get(name, {"type": "string"}))
    if not isinstance(kind, dict):
        return {}
    if kind.get("type") == "array":
        return {"type": "array", "items": _of_spark(kind.get("elementType"))}
    if kind.get("type") == "map":
        return {"type": "object", "additionalProperties": _of_spark(kind.get("valueType"))}
    fields = {field["name"]: _of_spark(field["type"]) for field in kind.get("fields", [])}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
