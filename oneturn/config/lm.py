"""Which LM answers, as a configuration declares it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from oneturn.config.base import Count, Section
from oneturn.core.databricks_auth import Who


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


def model_named(value: Any) -> Any:
    """A model string stands for a section that has only that."""
    return {"model": value} if isinstance(value, str) else value
