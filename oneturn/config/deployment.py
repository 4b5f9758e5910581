"""How the agent is deployed on Databricks, as a configuration declares it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from oneturn.config.base import Count, Section


class AppConfig(Section):
    """The Databricks App that `oneturn deploy app` makes."""

    name: str | None = None
    """The app's name; null for the agent's own, with hyphens."""
    source_path: str | None = None
    """The workspace folder that its files are put into; null for one named like the app in your home folder."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,28}[a-z0-9])?", name):
            raise ValueError("should be of small letters, digits and hyphens, at most 30")
        return name


class ResourceConfig(Section):
    """Something on Databricks that a tool of your own reaches."""

    kind: Literal[
        "function", "genie_space", "serving_endpoint", "sql_warehouse", "table", "uc_connection", "vector_search_index"
    ]
    """What it is."""
    name: str
    """Its full name in Unity Catalog; the id of a warehouse or a Genie space."""


class DeployConfig(Section):
    """How the agent is deployed on Databricks: `oneturn deploy`."""

    endpoint: str | None = None
    """The serving endpoint's name; null for the name that Databricks makes of the registered model's."""
    workload_size: Literal["Small", "Medium", "Large"] = "Small"
    """How many requests are answered at the same time: 4, 8 to 16, or 16 to 64."""
    scale_to_zero: bool = False
    """Let the endpoint sleep when nobody asks; the first question then waits minutes."""
    environment: dict[str, str] = {}
    """Environment variables of the deployed agent; a secret is a reference such as `{{secrets/<scope>/<key>}}`."""
    tags: dict[str, str] = {}
    """Tags of the serving endpoint."""
    resources: list[ResourceConfig] = []
    """What tools of your own reach on Databricks, besides what this file names elsewhere."""
    scopes: list[str] = []
    """API scopes that a user's token needs, besides those that follow from `credentials: user` in this file."""
    keep: Count | None = None
    """Versions that stay on the endpoint, besides the one that was replaced; null for all, and each may cost."""
    minutes: Annotated[float, Field(gt=0)] = 60.0
    """How long to wait for it to be ready."""
    app: AppConfig = AppConfig()
    """The Databricks App that `oneturn deploy app` makes."""
