"""Base class and shared types of the configuration sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
"""An integer of at least 1."""


class Section(BaseModel):
    """A section of the configuration: unknown keys are rejected, types aren't converted, instances are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)
