"""Configuration of deployments on Databricks."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from oneturn.config.base import Count, Section


class AppConfig(Section):
    """The Databricks App created by `oneturn deploy app`."""

    name: str | None = None
    """The app's name; null for the agent's name with hyphens."""
    source_path: str | None = None
    """The workspace folder for the app's files; null for a folder with the app's name in your home folder."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,28}[a-z0-9])?", name):
            raise ValueError("should be at most 30 lowercase letters, digits and hyphens")
        return name


class ResourceConfig(Section):
    """A Databricks resource that a tool in the agent's code uses."""

    kind: Literal[
        "function", "genie_space", "serving_endpoint", "sql_warehouse", "table", "uc_connection", "vector_search_index"
    ]
    """The kind of resource."""
    name: str
    """The resource's full name in Unity Catalog, or the id of a warehouse or Genie space."""


class DeployConfig(Section):
    """Deployment on Databricks with `oneturn deploy`."""

    endpoint: str | None = None
    """The serving endpoint's name; null for the name that Databricks derives from the registered model's."""
    workload_size: Literal["Small", "Medium", "Large"] = "Small"
    """Number of concurrent requests: 4, 8 to 16, or 16 to 64."""
    scale_to_zero: bool = False
    """Scale the endpoint to zero when idle; the next request then takes minutes."""
    environment: dict[str, str] = {}
    """Environment variables of the deployed agent; refer to secrets with `{{secrets/<scope>/<key>}}`."""
    tags: dict[str, str] = {}
    """Tags of the serving endpoint."""
    resources: list[ResourceConfig] = []
    """Databricks resources used by tools in the agent's code, in addition to those named elsewhere in this file."""
    scopes: list[str] = []
    """API scopes for user tokens, in addition to those that `credentials: user` entries in this file need."""
    keep: Count | None = None
    """Number of versions to keep on the endpoint, besides the replaced one; null for all. Each may incur cost."""
    minutes: Annotated[float, Field(gt=0)] = 60.0
    """Minutes to wait until the deployment is ready."""
    app: AppConfig = AppConfig()
    """The Databricks App created by `oneturn deploy app`."""
