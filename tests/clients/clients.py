"""The clients of the matrix, and where they differ from what the protocol lets a client show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

STREAMED, WHOLE = "streamed", "whole"
MODES = (WHOLE, STREAMED)


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a client shows otherwise in a cell, and why that isn't the server's doing.

    Attributes:
        reason: what it does, for the table.
        problems: the beginnings of the problems that the cell's check then reports, each of them.
    """

    reason: str
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Client:
    """One client.

    Attributes:
        title: its name in the table.
        environment: the name of its pins in ``tests/clients/pins``.
        package: the package whose version is shown.
        driver: the file in ``drivers`` that asks through it, with arguments.
        path: what its base URL has behind the server's; ``None`` if it asks the workspace's paths.
        setup: what its user sets, for the table.
        differences: by scenario, or by scenario and mode.
        stored: whether the server has a response store.
    """

    title: str
    environment: str
    package: str
    driver: tuple[str, ...]
    path: str | None
    setup: str
    differences: Mapping[str | tuple[str, str], Difference] = dataclasses.field(default_factory=dict)
    stored: bool = False

    def difference(self, scenario: str, mode: str) -> Difference | None:
        """Return the difference stated for a cell, if there is one."""
        return self.differences.get((scenario, mode)) or self.differences.get(scenario)


_APPROVALS = ("approval_yes", "approval_no")
_OPENAI = "`base_url`: the server's URL and `/v1`; `max_retries=0`"
_AI_SDK = "`maxRetries: 0`; custom inputs: a `fetch` that adds them to the body"

_AS_TOOL_CALLS = Difference(
    "gives the server's calls in `tool_calls`, beside their results; don't run them", ("wants to run the server's ",)
)
_CONTENT_PART = Difference(
    "can't answer: it sends an answer as a part of a message", ("raises BadRequestError: Error code: 400",)
)
_NOT_MARKED = Difference(
    "without streaming, doesn't mark the server's calls as executed by the provider", ("wants to run the server's ",)
)

CLIENTS = {
    "openai-2": Client("openai for Python", "openai_2", "openai", ("openai_driver.py",), "/v1", _OPENAI),
    "openai-3": Client("openai for Python", "openai_3", "openai", ("openai_driver.py",), "/v1", _OPENAI),
    "openai-node": Client(
        "openai for Node",
        "openai_node",
        "openai",
        ("openai_driver.mjs",),
        "/v1",
        "`baseURL`: the server's URL and `/v1`; `maxRetries: 0`",
    ),
    "ai-sdk-openai": Client(
        "AI SDK: @ai-sdk/openai",
        "ai_sdk",
        "@ai-sdk/openai",
        ("ai_sdk_driver.mjs", "openai"),
        "/v1",
        f"`baseURL`: the server's URL and `/v1`; `providerOptions: {{ openai: {{ store: false }} }}`; {_AI_SDK}",
        {
            **dict.fromkeys(
                _APPROVALS,
                Difference(
                    "with `store: false`, sends the answer without the request that it answers",
                    ("raises AI_APICallError: The input has no approval request",),
                ),
            ),
        },
    ),
    "ai-sdk-openai-stored": Client(
        "AI SDK: @ai-sdk/openai, with a response store",
        "ai_sdk",
        "@ai-sdk/openai",
        ("ai_sdk_driver.mjs", "openai-stored"),
        "/v1",
        f"`serve.store_env`; `baseURL`: the server's URL and `/v1`; {_AI_SDK}",
        stored=True,
    ),
    "ai-sdk-open-responses": Client(
        "AI SDK: @ai-sdk/open-responses",
        "ai_sdk",
        "@ai-sdk/open-responses",
        ("ai_sdk_driver.mjs", "open-responses"),
        "/v1",
        f"`url`: the server's URL and `/v1/responses`; {_AI_SDK}; citations are in the text's `providerMetadata`",
        {
            "tool": Difference("doesn't show `mcp_call` items", ("shows tools []",)),
            **dict.fromkeys(
                _APPROVALS,
                Difference("doesn't show `mcp_approval_request` items", ("raises Error: there is nothing to approve",)),
            ),
        },
    ),
    "ai-sdk-databricks": Client(
        "AI SDK: @databricks/ai-sdk-provider",
        "ai_sdk_databricks",
        "@databricks/ai-sdk-provider",
        ("ai_sdk_driver.mjs", "databricks"),
        None,
        f"`useRemoteToolCalling: true`; `formatUrl` for a server outside of a workspace; stream; {_AI_SDK}",
        {
            **dict.fromkeys([(name, WHOLE) for name in ("tool", "second_turn", *_APPROVALS)], _NOT_MARKED),
            ("citations", WHOLE): Difference(
                "without streaming, shows no citations", ("wants to run the server's ", "shows citations []")
            ),
            ("leave", WHOLE): Difference("without streaming, doesn't heed `abortSignal`", ("leaves after the end",)),
            ("client_tool", STREAMED): Difference(
                "with `useRemoteToolCalling`, takes each call of a stream for the server's, and doesn't run its own",
                ("shows '', not 'It is noon in Rome.'", "ran []", "made the LM be called 1 times"),
            ),
        },
    ),
    "openai-agents": Client(
        "openai-agents",
        "openai_agents",
        "openai-agents",
        ("agents_driver.py",),
        "/v1",
        "`OpenAIResponsesModel` with an `AsyncOpenAI` as above; for approvals, "
        '`tools=[HostedMCPTool(tool_config={"type": "mcp", "server_label": "oneturn"})]`',
    ),
    "langchain": Client(
        "LangChain: ChatOpenAI",
        "langchain",
        "langchain-openai",
        ("langchain_driver.py",),
        "/v1",
        f"`use_responses_api=True`; {_OPENAI}; `extra_body` for custom inputs",
    ),
    "chat-databricks": Client(
        "LangChain: ChatDatabricks",
        "databricks_langchain",
        "databricks-langchain",
        ("langchain_driver.py", "databricks"),
        None,
        "`use_responses_api=True`; `max_retries=0`; structured output: "
        '`extra_params={"text": {"format": …}}`, as `with_structured_output` sends `response_format`',
        {
            **dict.fromkeys(("tool", "citations", "second_turn"), _AS_TOOL_CALLS),
            **dict.fromkeys(_APPROVALS, _CONTENT_PART),
        },
    ),
    "pydantic-ai": Client(
        "pydantic-ai",
        "pydantic_ai",
        "pydantic-ai-slim",
        ("pydantic_ai_driver.py",),
        "/v1",
        "`OpenAIProvider` with an `AsyncOpenAI` as above; `openai_include_raw_annotations=True` for citations; "
        "`NativeOutput` for structured output",
        dict.fromkeys(
            _APPROVALS,
            Difference(
                "doesn't read `mcp_approval_request` items, and asks again",
                ("raises UnexpectedModelBehavior: Exceeded maximum output retries",),
            ),
        ),
    ),
    "litellm": Client(
        "litellm",
        "litellm",
        "litellm",
        ("litellm_driver.py",),
        "/v1",
        '`litellm.responses(model="openai/agent", api_base=…, max_retries=0)`, `api_base` as `base_url` above; for '
        'streams, `litellm.register_model({"agent": {"litellm_provider": "openai", "mode": "responses", '
        '"supports_native_streaming": True}})`: it imitates a stream of models that it doesn\'t know',
    ),
    "mlflow": Client(
        "MLflow's deployments client",
        "mlflow",
        "mlflow-skinny",
        ("mlflow_driver.py",),
        None,
        "`MLFLOW_HTTP_REQUEST_MAX_RETRIES=0`, and `MLFLOW_DEPLOYMENT_PREDICT_TOTAL_TIMEOUT` equal to "
        "`MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT`: else it repeats a request that takes too long",
    ),
}
"""By name, in the order of the table."""
