"""The fields of a request that are about its trace: the session, the user, and whether its id is returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, model_validator


class StrictFields(BaseModel):
    """Fields of which an unknown one is refused, unless it is ``null``."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {name: inner for name, inner in value.items() if inner is not None or name in known}


class Context(BaseModel):
    """The session and the user of the request's trace. Other keys are ignored, as by MLflow."""

    conversation_id: str | None = None
    user_id: str | None = None


class DatabricksOptions(Context):
    """What Databricks' clients ask for: the trace's id in the response, and the ``context`` in its older place."""

    return_trace: StrictBool | None = None


class TraceFields(StrictFields):
    """The fields of a request that are about its trace."""

    context: Context | None = None
    databricks_options: DatabricksOptions | None = None

    @property
    def mlflow_context(self) -> dict[str, str]:
        """The ``context`` of MLflow's request; a value in ``context`` counts before one in ``databricks_options``."""
        given = [each for each in (self.databricks_options, self.context) if each is not None]
        names = set(Context.model_fields)
        return {name: value for each in given for name, value in each.model_dump(include=names).items() if value}


def returns_trace_id(body: Mapping[str, Any]) -> bool:
    """Return whether a request that has been read asks for the trace's id in its ``databricks_options``."""
    options = body.get("databricks_options")
    return isinstance(options, Mapping) and options.get("return_trace") is True
