"""Convert values to strict JSON in UTF-8, read it strictly, and write it canonically for signatures."""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pydantic

from oneturn.core._dspy import serialize_for_json

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in the text of an object without a JSON form; differs by process


def plain(value: Any) -> Any:
    """Convert a value to JSON types (RFC 8259).

    Non-finite numbers become ``None``, lone surrogates U+FFFD, and objects of unknown types their text.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {replace_surrogates(_key(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    native = from_numpy(value)
    return plain(_serialized(value) if native is value else native)


def _key(key: Any) -> str:
    """Return the text of a mapping's key, as pydantic writes it: an enum's value, JSON's booleans."""
    if isinstance(key, enum.Enum):
        key = key.value
    return str(key).lower() if isinstance(key, bool) else str(key)


def from_numpy(value: Any) -> Any:
    """Return a NumPy scalar or array as Python values; anything else unchanged."""
    if type(value).__module__ != "numpy":
        return value
    return value.tolist() if hasattr(value, "tolist") else value


def as_records(value: Any) -> Any:
    """Return the data of a tool's result, at any depth, as lists and objects; other values unchanged.

    A table (of pandas, Polars or PyArrow) becomes a list of its rows, a row with names (a named tuple, a row of Spark
    or SQLAlchemy) an object, and a value of NumPy one of Python.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    value = _named_values(_rows(from_numpy(value)))
    if isinstance(value, Mapping):
        return {key: as_records(inner) for key, inner in value.items()}
    return [as_records(inner) for inner in value] if isinstance(value, list | tuple) else value


def _rows(value: Any) -> Any:
    """Return a table as its rows, and a series as its values by key."""
    for method in ("to_dicts", "to_pylist"):  # Polars, PyArrow
        if callable(rows := getattr(value, method, None)):
            return rows()
    if not (hasattr(value, "to_dict") and hasattr(value, "index") and hasattr(value, "notna")):  # pandas
        return value
    value = value.astype(object).where(value.notna(), None)
    if not hasattr(value, "columns"):
        return value.to_dict()
    keys = [name for name in value.index.names if name is not None]
    if (keys or value.index.inferred_type != "integer") and not set(keys) & set(value.columns):
        value = value.reset_index()
    return value.to_dict("records")


def _named_values(row: Any) -> Any:
    """Return a row with names as an object."""
    if not isinstance(row, tuple):
        return row
    if callable(names := getattr(row, "_asdict", None)):
        return names()
    return row.asDict() if hasattr(row, "asDict") and hasattr(row, "__fields__") else row


def replace_surrogates_deep(value: Any) -> Any:
    """Apply :func:`replace_surrogates` to every text in nested mappings and lists; other values are unchanged."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, Mapping):
        return {replace_surrogates(str(key)): replace_surrogates_deep(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [replace_surrogates_deep(inner) for inner in value]
    return value


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD: an LM may write them, and UTF-8 can't encode them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def jsonable(value: Any) -> Any:
    """Convert a value to JSON types as DSPy does in prompts; what has none becomes its text.

    Scalars, NumPy's floats among them, are returned unchanged: DSPy creates a validator for each value.
    """
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, enum.Enum)):
        return value
    native = from_numpy(value)
    return _serialized(value) if native is value else jsonable(native)


def _serialized(value: Any) -> Any:
    """Convert a value as DSPy's ``serialize_for_json`` does, but values of NumPy inside it to Python's."""
    try:
        return pydantic.TypeAdapter(type(value)).dump_python(value, mode="json", fallback=_native_or_text)
    except Exception:  # as DSPy: a type's own serializer may raise anything
        return str(value)


def _native_or_text(value: Any) -> Any:
    native = from_numpy(value)
    return str(value) if native is value else native


def read_json(text: str) -> Any:
    """Parse JSON strictly (RFC 8259).

    Raises:
        ValueError: it isn't JSON; a key is repeated; a number is NaN, infinite or too large; or a text contains an
            unpaired surrogate.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def canonical(value: Any) -> Any:
    """Convert a value to JSON types in which equal numbers are the same: ``150.0`` becomes ``150``.

    Unlike :func:`plain` it keeps different values different: ``NaN`` isn't ``None``, a surrogate isn't U+FFFD.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(key): canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(inner) for inner in value]
    if isinstance(value, set | frozenset):  # in no order of their own
        return sorted((canonical(inner) for inner in value), key=json.dumps)
    serialized = serialize_for_json(value)
    return _ADDRESS.sub("", serialized) if isinstance(serialized, str) else canonical(serialized)


def canonical_json(value: Any) -> bytes:
    """Write a value as the bytes to sign: the same for equal values, different for different ones."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":")).encode()


def normalise_arguments(args: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a tool call's arguments to what is shown, signed and executed: strict JSON, numbers by value."""
    normalised: dict[str, Any] = canonical(plain(args))
    return normalised


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object repeats a key")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} isn't JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number
