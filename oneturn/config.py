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

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from oneturn.config_errors import explain, refuse_secrets
from oneturn.config_files import CONFIG_VARIABLE, keys_of
from oneturn.config_section import Section
from oneturn.errors import ConfigError
from oneturn.tool_config import ToolConfig, Who

Count = Annotated[int, Field(ge=1)]


class LMConfig(Section):
    """Which LM answers, and how."""

    model: str = "local/1.5B"
    """A DSPy model string, such as `openai/<name>`, `databricks/<endpoint>` or `ollama_chat/<name>`;
    `local/0.5B` and `local/1.5B` are the embedded LM."""
    api_base: str | None = None
    """The provider's address, if it isn't the provider's usual one."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key; null for the provider's usual variables."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """0 for the most probable token each time; null leaves it to the provider."""
    max_tokens: Count | None = None
    """Tokens that one reply may have; null leaves it to the provider."""
    credentials: Who = "agent"
    """Whose credentials `databricks/<endpoint>` is asked with: the agent's own, or of the `user` who asks."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds to wait for the LM's next byte."""
    cache: bool = True
    """Answer a repeated request from DSPy's cache."""
    weights: str | None = None
    """The embedded LM's GGUF file, if you have it; null fetches it once."""
    kwargs: dict[str, Any] = {}
    """Anything else that the LM's constructor takes, such as `num_retries`, or `slots` of the embedded LM."""

    @property
    def is_local(self) -> bool:
        """Whether this is the embedded LM."""
        return self.model.startswith("local/")

    @property
    def is_workspace(self) -> bool:
        """Whether this is a serving endpoint, asked with credentials of the workspace."""
        return self.model.startswith("databricks/") and not (self.api_base or self.api_key_env)

    @field_validator("model")
    @classmethod
    def _names_its_provider(cls, model: str) -> str:
        provider, _, name = model.partition("/")
        if not (provider and name):
            raise ValueError(f"should name the provider and the model, such as 'openai/gpt-4o-mini', not {model!r}")
        return model

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, variable: str | None) -> str | None:
        if variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
            raise ValueError("should be the name of an environment variable, in capitals, not the key itself")
        return variable

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        if self.is_local and (self.api_base or self.api_key_env):
            raise ValueError(f"{self.model!r} runs in this process: it takes no api_base and no api_key_env")
        if self.weights and not self.is_local:
            raise ValueError(f"weights are for the embedded LM only, and the model is {self.model!r}")
        if self.credentials == "user" and not self.is_workspace:
            raise ValueError("credentials: user is for databricks/<endpoint>, without api_base and api_key_env")
        if self.credentials == "user" and self.cache:
            raise ValueError("with credentials: user, set cache: false; what one user may read isn't for all")
        return self


def _lm_named(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class EmbeddingsConfig(Section):
    """Which model turns texts into vectors."""

    model: str
    """`openai/<name>` for whatever speaks OpenAI's protocol, `databricks/<endpoint>`, or `local/0.5B`."""
    api_base: str | None = None
    """Its address, if it isn't OpenAI's own."""
    api_key_env: str | None = None
    """The name of the environment variable that holds the key."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds to wait for an answer."""

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str) -> str:
        if not re.fullmatch(r"(openai|databricks|local)/.+", model):
            raise ValueError(f"should be openai/<name>, databricks/<endpoint> or local/<size>, not {model!r}")
        return model

    @property
    def is_local(self) -> bool:
        """Whether this is the embedded model."""
        return self.model.startswith("local/")

    @property
    def identity(self) -> str:
        """What tells this model from another."""
        return f"{self.api_base or ''} {self.model}".strip()


_USUAL = {"query_type": "ann", "credentials": "agent"}
_OF_DATABRICKS = ("index", "text_column", "primary_key", "doc_uri", "title", "columns", "filters")


class RetrieverConfig(Section):
    """How passages are found."""

    k: Count = 3
    """Passages that a search gives."""
    kind: Literal["local", "databricks"] = "local"
    """`local` searches documents that the agent has; `databricks` an index of Vector Search."""
    embeddings: Annotated[EmbeddingsConfig | None, BeforeValidator(_lm_named)] = None
    """The model that embeds: a model string, or a section. `local`: find by meaning, too; null for words alone.
    `databricks`: for an index whose vectors are your own; null where Databricks computes them."""
    index: str | None = None
    """`databricks`: the index, `<catalog>.<schema>.<name>`."""
    text_column: str | None = None
    """`databricks`: the column that holds the text."""
    primary_key: str | None = None
    """`databricks`: the column that tells rows apart; null for the one that the index names."""
    doc_uri: str | None = None
    """`databricks`: the column that says where a text comes from: what citations name."""
    title: str | None = None
    """`databricks`: the column that holds the title."""
    columns: list[str] | None = None
    """`databricks`: further columns, kept in the documents' metadata."""
    filters: dict[str, Any] | None = None
    """`databricks`: which rows, as Vector Search reads it, such as `{"language": "en", "year >=": 2024}`."""
    query_type: Literal["ann", "hybrid", "full_text"] = "ann"
    """`databricks`: by meaning, by meaning and words, or by words."""
    credentials: Who = "agent"
    """`databricks`: whose: the agent's own, or of the `user` who asks."""

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.kind == "local":
            given = [name for name in _OF_DATABRICKS if getattr(self, name) is not None]
            given += [name for name, usual in _USUAL.items() if getattr(self, name) != usual]
            if given:
                raise ValueError(f"{', '.join(given)} need kind: databricks")
            return self
        missing = [name for name in ("index", "text_column") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind: databricks needs {' and '.join(missing)}")
        if not re.fullmatch(r"[^.`/]+\.[^.`/]+\.[^.`/]+", str(self.index)):
            raise ValueError(f"index should be <catalog>.<schema>.<name>, not {self.index!r}")
        return self


class BudgetConfig(Section):
    """What a compile may cost at most; it ends with the best program so far."""

    lm_calls: Count | None = None
    """LM calls; null for no limit."""
    tokens: Count | None = None
    """Tokens read and written; null for no limit."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes of work, over all starts; null for no limit."""
    cost: Annotated[float, Field(gt=0)] | None = None
    """US dollars, where the prices are known; null for no limit."""


class CompileConfig(Section):
    """How the prompts are compiled."""

    recipe: str = "random_search"
    """The recipe's name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What its random choices start from: the same seed, the same choices."""
    dev_examples: Count | None = None
    """How many examples of the development split candidates are judged on, the first ones; null for all."""
    threads: Count = 1
    """Examples at the same time. The embedded LM uses all cores for one: more doesn't make it faster."""
    teacher: Annotated[LMConfig | None, BeforeValidator(_lm_named)] = None
    """The LM that shows how it is done, proposes instructions or reflects on failures: a model string, or a section;
    null for the agent's own."""
    budget: BudgetConfig = BudgetConfig()
    """What a compile may cost at most."""


class GateConfig(Section):
    """When a version may become the champion: `oneturn promote`."""

    alias: str = "champion"
    """The alias of the registered model that is moved."""
    min_difference: float = 0.0
    """The lower bound of the difference's 95% interval must be above this."""
    max_category_loss: Annotated[float, Field(ge=0)] = 0.10
    """No category may lose more than this."""
    category: str = "category"
    """The examples' label that says their category."""
    min_category_examples: Count = 5
    """Categories with fewer examples are judged together, as one."""
    min_examples: Count = 10
    """Fewer examples than this can't tell two versions apart: the rule doesn't hold."""


class JudgeConfig(Section):
    """Which LM judges answers, beside the metric, in `oneturn evaluate`."""

    model: str | None = None
    """MLflow's URI of the judge's LM, such as `openai:/gpt-4.1-mini`, `endpoints:/<name>` or `databricks`; null for no
    judge."""
    guidelines: list[str] = []
    """What answers must keep to, a sentence each; judged as one more column."""
    min_kappa: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """A judge that agrees less with people than this (Cohen's kappa) is flagged by `oneturn judge`."""

    @field_validator("model")
    @classmethod
    def _is_a_uri(cls, model: str | None) -> str | None:
        if model is not None and model != "databricks" and not re.fullmatch(r"[\w-]+:/+[^/\s].*", model):
            raise ValueError(f"should be an MLflow URI, such as 'openai:/gpt-4.1-mini' or 'databricks', not {model!r}")
        return model


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
