"""``AgentConfig``: everything about an agent that may differ between two machines, typed.

``AgentConfig.read`` goes through ``mlflow.models.ModelConfig``, so one line works in a notebook (a YAML file), in a
test (a dict) and inside a logged model (the ``model_config`` it was logged with). An agent with settings of its own
subclasses it:

    class SupportDeskConfig(AgentConfig):
        thoughts: bool = True

    config = SupportDeskConfig.read("configs/dev.yaml")
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from typing_extensions import Self

from oneturn.config.base import Count, Section
from oneturn.config.compilation import CompileConfig, GateConfig, JudgeConfig
from oneturn.config.deployment import DeployConfig
from oneturn.config.errors import explain, refuse_secrets
from oneturn.config.lm import LMConfig
from oneturn.config.loading import CONFIG_VARIABLE, keys_of
from oneturn.config.retriever import RetrieverConfig
from oneturn.config.tools import ToolConfig
from oneturn.errors import ConfigError


class MlflowConfig(Section):
    """Where runs, traces and models are kept."""

    tracking_uri: str = "sqlite:///mlflow.db"
    """MLflow's tracking server, database, or `databricks`."""
    experiment: str = "oneturn"
    """The experiment that runs and traces belong to; on Databricks a path such as `/Shared/support_desk`."""
    model_name: str = "support_desk"
    """The registered model's name; on Databricks `<catalog>.<schema>.<name>`."""


class ServeConfig(Section):
    """Where the agent listens."""

    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` lets other machines in."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """The port to listen on."""
    deadline: Annotated[float, Field(gt=0)] | None = None
    """Seconds that a request may take; then it ends as incomplete, with what is known. null for no limit."""


class ApprovalsConfig(Section):
    """How a person's approvals of tool calls are signed."""

    key_env: str | None = None
    """The name of the environment variable that holds the signing key, the same for all replicas; null for an agent
    whose tools need no approval."""
    seconds: Annotated[float, Field(gt=0)] = 3600.0
    """How long a person has to answer."""
    ledger: str | None = None
    """An SQLAlchemy URL of a database that all replicas share, so that no approval is used twice; null remembers in
    this process only."""


class DataConfig(Section):
    """The examples."""

    examples: str = "data/examples"
    """The folder of train.jsonl, dev.jsonl, test.jsonl and schema.json."""
    redact: dict[str, str] = {}
    """What to take out of what users wrote, besides mail addresses, numbers of phones, cards and accounts, and
    secrets: a regular expression by the name that stands in its place, such as `customer: K-\\d+`."""

    @field_validator("redact")
    @classmethod
    def _are_patterns(cls, redact: dict[str, str]) -> dict[str, str]:
        for name, pattern in redact.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name}: {pattern!r} isn't a regular expression ({error})") from None
        return redact


class AgentConfig(Section):
    """The configuration of an agent; subclass it for keys of your own."""

    lm: LMConfig = LMConfig()
    """The LM that answers."""
    max_iters: Count = 6
    """LM steps that a question may take."""
    retriever: RetrieverConfig = RetrieverConfig()
    """How passages are found."""
    tools: list[ToolConfig] = []
    """Tools from elsewhere, besides the agent's own."""
    compiled: str | None = None
    """The compiled program's JSON file, such as `data/compiled/support_desk.json`; null for uncompiled prompts."""
    compiled_on_drift: Literal["fail", "splice"] = "fail"
    """What happens if signature or tools have changed since it was compiled: `fail`, or `splice` changed tools and
    descriptions into it, with a warning."""
    compile: CompileConfig = CompileConfig()
    """How the prompts are compiled."""
    gate: GateConfig = GateConfig()
    """When a version may become the champion."""
    judge: JudgeConfig = JudgeConfig()
    """Which LM judges answers."""
    mlflow: MlflowConfig = MlflowConfig()
    """Where runs, traces and models are kept."""
    serve: ServeConfig = ServeConfig()
    """Where the agent listens."""
    approvals: ApprovalsConfig = ApprovalsConfig()
    """How a person's approvals of tool calls are signed."""
    deploy: DeployConfig = DeployConfig()
    """How the agent is deployed on Databricks."""
    data: DataConfig = DataConfig()
    """The examples."""

    @property
    def needs_weights(self) -> bool:
        """Whether the embedded model answers, or embeds."""
        embeddings = self.retriever.embeddings
        return self.lm.is_local or (embeddings is not None and embeddings.is_local)

    @classmethod
    def read(
        cls, default: str | Path | Mapping[str, Any] = "configs/dev.yaml", *, root: str | Path | None = None
    ) -> Self:
        """Read the configuration that holds here.

        The first of these wins: the ``model_config`` of the logged model that MLflow is loading; the file that the
        environment variable ``ONETURN_CONFIG`` names; ``default``. A file may say ``extends: other.yaml``; and over
        all but the first stands what the environment variable ``ONETURN_SET`` sets, a ``lm.model=local/0.5B`` a line.

        Args:
            default: a YAML file, or the keys themselves.
            root: where a relative path is looked for when the working directory doesn't have it.

        Raises:
            ConfigError: a file is missing or isn't YAML; a key is unknown; a value is wrong, or looks like a secret.
        """
        found, source = keys_of(os.environ.get(CONFIG_VARIABLE) or default, root)
        refuse_secrets(found, source)
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from None

    def to_model_config(self) -> dict[str, Any]:
        """Return plain values for ``log_model(model_config=…)``; ``read`` gives the same configuration back."""
        return self.model_dump(mode="json")
