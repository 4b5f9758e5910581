"""``AgentConfig``: the typed configuration of an agent.

``AgentConfig.read`` uses ``mlflow.models.ModelConfig``, so the same call works in a notebook (a YAML file), in a test
(a dict) and inside a logged model (its ``model_config``). Subclass ``AgentConfig`` to add settings:

    class MyConfig(AgentConfig):
        greeting: str = ""

    config = MyConfig.read("configs/dev.yaml")
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from oneturn.config.base import Count, Section
from oneturn.config.compilation import CompileConfig, GateConfig, JudgeConfig
from oneturn.config.deployment import DeployConfig
from oneturn.config.errors import explain, refuse_secrets
from oneturn.config.lm import LMConfig
from oneturn.config.loading import CONFIG_VARIABLE, keys_of
from oneturn.config.retriever import RetrieverConfig
from oneturn.config.tools import ToolConfig, Variable
from oneturn.errors import ConfigError

_PASSWORD = re.compile(r"://[^/?#@]*:[^?#]*@|[?&;]\s*\w*(password|passwd|pwd|secret|token)\w*\s*=", re.IGNORECASE)


class MlflowConfig(Section):
    """Where runs, traces and models are stored."""

    tracking_uri: str = "sqlite:///mlflow.db"
    """The MLflow tracking URI: a server, a database, or `databricks`. A relative path of a file, as in
    `sqlite:///mlflow.db`, is in the agent's folder."""
    experiment: str = "oneturn"
    """The experiment for runs and traces; on Databricks a path such as `/Shared/my_agent`."""
    model_name: str = ""
    """The registered model's name, by default the agent's; on Databricks `<catalog>.<schema>.<name>`."""


class ServeConfig(Section):
    """Server settings."""

    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` accepts connections from other machines."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """The port to listen on."""
    deadline: Annotated[float, Field(gt=0)] | None = None
    """Time limit of a request in seconds, after which it ends as incomplete with partial output; null for no limit."""
    stream: Literal["checked", "eager"] = "checked"
    """Which text of the answer is streamed: `checked`, what nothing can replace any more; or `eager`, what the LM
    writes, which another attempt may replace."""
    tool_items: Literal["mcp_call", "function_call", "none"] | None = None
    """How the agent's own tool calls appear in responses; null for `mcp_call` items at `/v1/responses` and
    `function_call` items at `/responses` and `/invocations`."""
    max_requests: Count = 64
    """The number of requests that one process answers at a time."""
    max_waiting: Annotated[int, Field(ge=0)] = 64
    """The number of further requests that wait for one of them to end; beyond it, a request gets status 503."""
    max_body_mb: Annotated[float, Field(gt=0)] = 16.0
    """The largest request body, in megabytes (10^6 bytes); images and files are inside it."""
    body_seconds: Annotated[float, Field(gt=0, le=60)] = 30.0
    """How long a client may take to send a request's body, in seconds."""
    allowed_hosts: list[str] = []
    """Host names by which a proxy on this machine is reached, such as `agent.example.com`, while `host` is a loopback
    address: only then is the `Host` of requests checked."""
    cors: list[str] = []
    """The origins whose web pages may send requests, such as `https://chat.example.com`; `*` for all."""
    api_key_env: Variable | None = None
    """The environment variable that holds the key which clients send as `Authorization: Bearer <key>`; null for no
    key."""
    page: bool = True
    """Whether `GET /` answers with a page on which a person tries the agent, approves its calls and gives feedback."""
    store_env: Variable | None = None
    """The environment variable that holds the address of the response store's database; null for no store."""
    store_ttl_seconds: Annotated[float, Field(gt=0)] = 7 * 86400.0
    """How long the store keeps a response after it was made, in seconds."""

    def store_address(self) -> str | None:
        """Return the address of the response store's database; ``None`` if no store is configured.

        Raises:
            ConfigError: the environment variable isn't set.
        """
        if self.store_env is None:
            return None
        if not (address := os.environ.get(self.store_env, "").strip()):
            raise ConfigError(
                f"The environment variable {self.store_env} (serve.store_env) isn't set. Set it to the address of the "
                "response store's database, such as sqlite:////data/store.db or postgresql://user@host/database."
            )
        return address

    def api_key(self) -> str | None:
        """Return the API key; ``None`` if none is configured.

        Raises:
            ConfigError: the environment variable isn't set.
        """
        if self.api_key_env is None:
            return None
        if not (key := os.environ.get(self.api_key_env, "").strip()):
            raise ConfigError(
                f"The environment variable {self.api_key_env} isn't set: it should hold the key that clients send "
                "(serve.api_key_env names it)."
            )
        return key


class ApprovalsConfig(Section):
    """Signing of approvals for tool calls."""

    key_env: Variable | None = None
    """The environment variable that holds the signing key, the same for all replicas: at least 32 characters, 10 of
    them different; null if no tool needs approval."""
    seconds: Annotated[float, Field(gt=0)] = 3600.0
    """Seconds until an approval request expires."""
    ledger: str | None = None
    """SQLAlchemy URL of a database shared by all replicas, which records used approvals, if the URL has no password;
    null records them in this process only."""
    ledger_env: Variable | None = None
    """Instead of `ledger`, the environment variable that holds the database's URL."""

    @field_validator("ledger")
    @classmethod
    def _has_no_password(cls, ledger: str | None) -> str | None:
        if ledger is not None and _PASSWORD.search(ledger):
            raise ValueError(
                "it contains a password, and a configuration is stored in plain text; put the address in an "
                "environment variable, and set approvals.ledger_env to the variable's name"
            )
        return ledger

    @model_validator(mode="after")
    def _one_ledger(self) -> Self:
        if self.ledger is not None and self.ledger_env is not None:
            raise ValueError("set either ledger or ledger_env")
        return self


class DataConfig(Section):
    """Example files and redaction."""

    examples: str = "data/examples"
    """The folder with train.jsonl, dev.jsonl, test.jsonl and schema.json."""
    redact: dict[str, str] = {}
    """Regular expressions to redact from users' texts, by the name that replaces a match, such as `customer: K-\\d+`;
    besides mail addresses, phone, card and account numbers, and secrets."""

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
    """The configuration of an agent; subclass it to add keys."""

    lm: LMConfig = LMConfig()
    """The agent's LM."""
    max_iters: Count = 6
    """The maximum number of LM steps per question."""
    tool_calling: Literal["auto", "native", "schema", "text"] = "auto"
    """How the LM is asked for its steps: by `native` function calling, by a JSON `schema` of its reply, or by the
    prompt alone (`text`); `auto` chooses by what the LM can do."""
    thoughts: bool | Literal["free"] | None = None
    """Whether the LM writes a thought before each call: `true` for a few words, `free` for reasoning in free text
    before the first one; null for what the program declares."""
    retriever: RetrieverConfig = RetrieverConfig()
    """Retrieval of passages."""
    tools: list[ToolConfig] = []
    """External tools, in addition to those the agent declares in code."""
    compiled: str | None = None
    """The compiled program's JSON file, such as `data/compiled/my_agent.json`; null for uncompiled prompts."""
    compile: CompileConfig = CompileConfig()
    """Prompt compilation."""
    gate: GateConfig = GateConfig()
    """Criteria for promoting a version."""
    judge: JudgeConfig = JudgeConfig()
    """The LM judge."""
    mlflow: MlflowConfig = MlflowConfig()
    """Where runs, traces and models are stored."""
    serve: ServeConfig = ServeConfig()
    """Server settings."""
    approvals: ApprovalsConfig = ApprovalsConfig()
    """Signing of approvals for tool calls."""
    deploy: DeployConfig = DeployConfig()
    """Deployment on Databricks."""
    data: DataConfig = DataConfig()
    """Example files and redaction."""

    @property
    def needs_weights(self) -> bool:
        """Whether the LM or the embeddings use the embedded model."""
        embeddings = self.retriever.embeddings
        return self.lm.is_local or (embeddings is not None and embeddings.is_local)

    @classmethod
    def read(
        cls, default: str | Path | Mapping[str, Any] = "configs/dev.yaml", *, root: str | Path | None = None
    ) -> Self:
        """Read and validate the configuration.

        The first available source is used: the ``model_config`` of the logged model that MLflow is loading; the file
        in the environment variable ``ONETURN_CONFIG``; ``default``. A file can inherit with ``extends: other.yaml``.
        The environment variable ``ONETURN_SET`` overrides keys of the last two, with one ``lm.model=local/0.5B`` per
        line.

        Args:
            default: a YAML file, or a mapping of keys.
            root: the agent's folder. A relative ``default`` is resolved in it, then in the working directory; the file
                in ``ONETURN_CONFIG`` in the working directory, then in it.

        Raises:
            ConfigError: a file is missing or isn't YAML; a key is unknown; a value is invalid or looks like a secret.
        """
        folders = (Path.cwd(), root) if (configured := os.environ.get(CONFIG_VARIABLE)) else (root, Path.cwd())
        keys, source = keys_of(configured or default, *(folder for folder in folders if folder is not None))
        refuse_secrets(keys, source)
        try:
            return cls.model_validate(keys)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from None

    def to_model_config(self) -> dict[str, Any]:
        """Return the configuration as plain values for ``log_model(model_config=…)``; ``read`` accepts them."""
        return self.model_dump(mode="json")
