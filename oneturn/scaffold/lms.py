"""The LMs that a new project can start with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LMChoice:
    """A provider of LMs.

    Attributes:
        kind: what the templates call it.
        label: its name for people.
        prefix: the start of its DSPy model strings.
        default: the model that is suggested.
        note: what it needs; for the project's README.
        extra: oneturn's extra that it needs; ``None`` for none.
    """

    kind: str
    label: str
    prefix: str
    default: str
    note: str
    extra: str | None = None


LM_CHOICES = (
    LMChoice(
        "databricks",
        "a Databricks serving endpoint",
        "databricks/",
        "databricks/databricks-claude-sonnet-4",
        "It needs `DATABRICKS_HOST` and `DATABRICKS_TOKEN`, or a profile of the Databricks CLI.",
        "databricks",
    ),
    LMChoice("openai", "OpenAI", "openai/", "openai/gpt-4o-mini", "It needs the variable `OPENAI_API_KEY`."),
    LMChoice("ollama", "Ollama, here", "ollama_chat/", "ollama_chat/qwen2.5:7b", "It needs a running Ollama."),
    LMChoice(
        "local",
        "the embedded LM: no key, 1.1 GB of weights, small and often wrong",
        "local/",
        "local/1.5B",
        "Its weights (1.1 GB) are downloaded at the first question; it is small and often wrong.",
        "local",
    ),
)
"""The choices that are asked for, in order. Any other DSPy model string works too."""

_OTHER = LMChoice("other", "another provider", "", "", "It needs the provider's environment variable with the key.")


def choice_for(model: str) -> LMChoice:
    """Return the provider of a DSPy model string."""
    return next((choice for choice in LM_CHOICES if model.startswith(choice.prefix)), _OTHER)
