"""The LMs that a new agent can start with, and the error of an agent without one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LMChoice:
    """A provider of LMs.

    Attributes:
        kind: what the templates of ``oneturn new`` call it.
        label: its name for people.
        prefix: the start of its DSPy model strings.
        default: the model that is suggested.
        note: what it needs.
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
        "the embedded LM: no key, small and often wrong",
        "local/",
        "local/1.5B",
        "Its weights (1.1 GB) are downloaded at the first question.",
        "local",
    ),
)
"""The choices that are asked for, in order. Any other DSPy model string works too."""

_OTHER = LMChoice("other", "another provider", "", "", "It needs the provider's environment variable with the key.")


def choice_for(model: str) -> LMChoice:
    """Return the provider of a DSPy model string."""
    return next((choice for choice in LM_CHOICES if model.startswith(choice.prefix)), _OTHER)


def no_lm_message() -> str:
    """Return the error of a configuration without an LM: how to name one of each provider."""
    lines = [
        "No LM is configured. Name one in the configuration file, as `lm: {model: …}`, or for one command, as",
        "`oneturn --set lm.model=…`. Any DSPy model string works, such as:",
    ]
    width = max(len(choice.default) for choice in LM_CHOICES)
    for choice in LM_CHOICES:
        extra = f' Install it with: pip install "oneturn[{choice.extra}]".' if choice.extra else ""
        note = choice.note.replace("`", "")
        lines.append(f"  {choice.default:{width}}  {choice.label}. {note}{extra}")
    return "\n".join(lines)
