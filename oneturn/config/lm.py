"""Configuration of an LM."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from oneturn.config.base import Address, Count, Section
from oneturn.core.databricks_auth import Who

LOCAL_SIZES = ("0.5B", "1.5B")
"""The sizes of the embedded LM."""


class LMConfig(Section):
    """An LM and its options."""

    model: str = ""
    """A DSPy model string, such as `openai/<name>`, `databricks/<endpoint>` or `ollama_chat/<name>`;
    `local/0.5B` and `local/1.5B` are the embedded LM. Without one, the program has to set its own LM."""
    api_base: Address | None = None
    """The provider's base URL; null for the default."""
    api_key_env: str | None = None
    """The environment variable that holds the API key; null for the provider's default variables."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """Sampling temperature; 0 always takes the most probable token, null uses the provider's default. For
    OpenAI's reasoning models, which refuse 0, it is the same as null."""
    max_tokens: Count | None = None
    """The maximum number of tokens per reply; null for the provider's default."""
    credentials: Who = "agent"
    """Credentials for `databricks/<endpoint>`: the agent's own, or those of the calling `user`."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Read timeout in seconds: the longest wait for the LM's next byte."""
    cache: bool = True
    """Answer repeated requests from DSPy's cache."""
    weights: str | None = None
    """A local GGUF file for the embedded LM; null downloads it once."""
    kwargs: dict[str, Any] = {}
    """Further arguments of the LM's constructor: `num_retries`, or `slots` and `threads` for the embedded LM."""

    @property
    def is_local(self) -> bool:
        """Whether this is the embedded LM."""
        return self.model.startswith("local/")

    @property
    def is_workspace(self) -> bool:
        """Whether this is a serving endpoint called with workspace credentials."""
        return self.model.startswith("databricks/") and not (self.api_base or self.api_key_env)

    @field_validator("model")
    @classmethod
    def _names_its_provider(cls, model: str) -> str:
        provider, _, name = model.partition("/")
        if model and not (provider and name):
            raise ValueError(f"should name the provider and the model, such as 'openai/gpt-4o-mini', not {model!r}")
        if provider == "local" and name not in LOCAL_SIZES:
            raise ValueError(f"the embedded LM has no size {name!r}; use local/{' or local/'.join(LOCAL_SIZES)}")
        return model

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, variable: str | None) -> str | None:
        if variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
            raise ValueError("should be the name of an environment variable, in uppercase, not the key itself")
        return variable

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        if not self.model and (self.api_base or self.api_key_env):
            raise ValueError("model is missing; api_base and api_key_env are settings of an LM")
        if self.is_local and (self.api_base or self.api_key_env):
            raise ValueError(f"{self.model!r} runs in this process; remove api_base and api_key_env")
        if self.weights and not self.is_local:
            raise ValueError(f"weights are for the embedded LM only, not for {self.model!r}")
        if self.credentials == "user" and not self.is_workspace:
            raise ValueError("credentials: user is for databricks/<endpoint>, without api_base and api_key_env")
        if self.credentials == "user" and self.cache:
            raise ValueError("with credentials: user, set cache: false, so that no user gets another user's answer")
        return self


def model_named(value: Any) -> Any:
    """Convert a model string to a section with only ``model`` set."""
    return {"model": value} if isinstance(value, str) else value
