"""Base class and shared types of the configuration sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from oneturn.core.urls import with_scheme

Count = Annotated[int, Field(ge=1)]
"""An integer of at least 1."""

Address = Annotated[str, AfterValidator(with_scheme)]
"""A URL; `http://` is added to `localhost` and `HOST:PORT`."""


class Section(BaseModel):
    """A section of the configuration: unknown keys are rejected, types aren't converted, instances are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)
