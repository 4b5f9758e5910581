"""The clients of the matrix, and where they differ from what the protocol lets a client show."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

V1 = os.environ.get("A3P", "/v1")
STREAMED, WHOLE = "streamed", "whole"
MODES = (WHOLE, STREAMED)


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a client shows otherwise in a cell, and why that isn't the server's doing.

    Attributes:
        problem: the beginning of the problem that the cell's check reports.
        reason: for the table.
    """

    problem: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Client:
    """One client.

    Attributes:
        title: its name in the table.
        environment: the name of its pins in ``environments``.
        package: the package whose version is shown.
        driver: the file in ``drivers`` that asks through it, with arguments.
        path: what its base URL has behind the server's; ``None`` if it asks the workspace's paths.
        setup: what its user sets, for the table.
        differences: by scenario, or by scenario and mode.
    """

    title: str
    environment: str
    package: str
    driver: tuple[str, ...]
    path: str | None
    setup: str
    differences: Mapping[str | tuple[str, str], Difference] = dataclasses.field(default_factory=dict)

    def difference(self, scenario: str, mode: str) -> Difference | None:
        """Return the difference stated for a cell, if there is one."""
        return self.differences.get((scenario, mode)) or self.differences.get(scenario)


CLIENTS = {
    "openai-2": Client("openai (Python) 2", "openai_2", "openai", ("openai_driver.py",), V1, "base_url"),
    "openai-3": Client("openai (Python) 3", "openai_3", "openai", ("openai_driver.py",), V1, "base_url"),
    "openai-node": Client("openai (Node)", "openai_node", "openai", ("openai_driver.mjs",), V1, "base_url"),
    "ai-sdk-openai": Client("AI SDK", "ai_sdk", "@ai-sdk/openai", ("ai_sdk_driver.mjs", "openai"), V1, ""),
    "ai-sdk-open-responses": Client(
        "AI SDK", "ai_sdk", "@ai-sdk/open-responses", ("ai_sdk_driver.mjs", "open-responses"), V1, ""
    ),
    "ai-sdk-databricks": Client(
        "AI SDK", "ai_sdk_databricks", "@databricks/ai-sdk-provider", ("ai_sdk_driver.mjs", "databricks"), None, ""
    ),
    "openai-agents": Client("openai-agents", "openai_agents", "openai-agents", ("agents_driver.py",), V1, ""),
    "langchain": Client("ChatOpenAI", "langchain", "langchain-openai", ("langchain_driver.py",), V1, ""),
    "chat-databricks": Client(
        "ChatDatabricks",
        "databricks_langchain",
        "databricks-langchain",
        ("langchain_driver.py", "databricks"),
        None,
        "",
    ),
    "pydantic-ai": Client("pydantic-ai", "pydantic_ai", "pydantic-ai-slim", ("pydantic_ai_driver.py",), V1, ""),
    "litellm": Client("litellm", "litellm", "litellm", ("litellm_driver.py",), V1, ""),
    "mlflow": Client("MLflow's deployments client", "mlflow", "mlflow-skinny", ("mlflow_driver.py",), None, ""),
}
