"""Type, description and default of a field: of a signature, or of a pydantic model.

A field is a pydantic ``FieldInfo``. Whether it is required is ``field.is_required()``.
"""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo


def field_type(field: FieldInfo) -> Any:
    """Return the type of a field with its metadata: pydantic keeps a bound or a pattern apart from the annotation."""
    return field.rebuild_annotation()


def field_description(name: str, field: FieldInfo) -> str | None:
    """Return the declared description of a field; ``None`` if there is none.

    DSPy keeps a ``desc`` in ``json_schema_extra``, and ``${name}`` there if none is declared.
    """
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or "desc" not in extra:
        return field.description
    declared: Any = extra["desc"]
    return None if declared == f"${{{name}}}" else declared


def field_default(field: FieldInfo) -> Any:
    """Return the default of a field that isn't required; a ``default_factory`` is called each time."""
    return field.get_default(call_default_factory=True)
