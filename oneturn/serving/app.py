"""The ASGI application that serves an agent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mlflow.pyfunc import ResponsesAgent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from oneturn.responses.dialects import DialectName
from oneturn.responses.tool_items import ToolItemForm
from oneturn.serving.http_errors import on_exception, on_http_exception
from oneturn.serving.information import Information
from oneturn.serving.request_run import ServedAgent
from oneturn.serving.responses_endpoint import OpenRuns, ResponsesEndpoint

THREADS = 64
"""The number of requests that one application handles concurrently; further requests are queued."""

PATHS: dict[str, DialectName] = {"/v1/responses": "open_responses", "/responses": "mlflow", "/invocations": "mlflow"}
"""The paths that run the agent, with their dialects."""


def application(
    agent: ResponsesAgent,
    *,
    name: str = "agent",
    version: str | None = None,
    tool_items: ToolItemForm | None = None,
) -> AgentApplication:
    """Return the ASGI application that serves ``agent``.

    ``POST /v1/responses`` has the dialect of Open Responses, ``/responses`` and ``/invocations`` that of MLflow.
    Further paths: ``/v1/models``, ``/health``, ``/ready``, ``/agent/info`` and ``/openapi.json``.

    Args:
        agent: the agent.
        name: its name, the ``model`` of its responses.
        version: its version, if it has one.
        tool_items: how its own tool calls appear; ``None`` for ``mcp_call`` items at ``/v1/responses`` and
            ``function_call`` items elsewhere.
    """
    return AgentApplication(ServedAgent(agent, name, version, tool_items))


class AgentApplication(Starlette):
    """A Starlette application whose open runs can be stopped."""

    def __init__(self, served: ServedAgent):
        self._open_runs = OpenRuns()
        executor = ThreadPoolExecutor(THREADS, thread_name_prefix="oneturn-request")
        information = Information(served, PATHS)
        endpoints = {
            path: ResponsesEndpoint(served, dialect, executor, self._open_runs) for path, dialect in PATHS.items()
        }
        super().__init__(
            routes=[
                *(Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()),
                *information.routes,
            ],
            exception_handlers={HTTPException: on_http_exception, Exception: on_exception},
        )

    def stop(self) -> None:
        """Cancel every open request; each stream ends with a terminal event."""
        self._open_runs.stop()
