"""The ASGI application that serves an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.pyfunc import ResponsesAgent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from oneturn.config import ServeConfig
from oneturn.core.tracing import export_in_batches
from oneturn.responses.dialects import DialectName
from oneturn.serving.access import OPEN_PATHS, Access
from oneturn.serving.body_limit import BodyLimit
from oneturn.serving.http_errors import on_exception, on_http_exception
from oneturn.serving.information import Information
from oneturn.serving.interruption import interrupt_httpx
from oneturn.serving.page.feedback import FeedbackEndpoint
from oneturn.serving.page.files import page_routes
from oneturn.serving.request_id import RequestId
from oneturn.serving.request_limit import RequestLimit
from oneturn.serving.responses_endpoint import OpenRuns, ResponsesEndpoint
from oneturn.serving.served_agent import ServedAgent
from oneturn.serving.store import StoredResponses

if TYPE_CHECKING:
    from oneturn.serving.store.request import RequestStorage

PATHS: dict[str, DialectName] = {"/v1/responses": "open_responses", "/responses": "mlflow", "/invocations": "mlflow"}
"""The paths that run the agent, with their dialects."""


def application(
    agent: ResponsesAgent,
    *,
    name: str = "agent",
    version: str | None = None,
    example_questions: tuple[str, ...] = (),
    settings: ServeConfig | None = None,
    loopback: bool = False,
) -> AgentApplication:
    """Return the ASGI application that serves ``agent``.

    ``POST /v1/responses`` has the dialect of Open Responses, ``/responses`` and ``/invocations`` that of MLflow.
    Further paths: ``/``, a page to try the agent on, and ``/agent/feedback``, unless ``settings.page`` is false;
    ``/v1/responses/{id}`` (the response store), ``/v1/models``, ``/health``, ``/ready``, ``/agent/info`` and
    ``/openapi.json``.

    Args:
        agent: the agent.
        name: its name, the ``model`` of its responses.
        version: its version, if it has one.
        example_questions: questions that it can answer, for people who try it on the page.
        settings: limits, who may send requests, and how tool calls appear; the defaults of
            :class:`oneturn.config.ServeConfig` if not given.
        loopback: whether the server listens on a loopback address; the ``Host`` of requests is checked then.

    Raises:
        ConfigError: an environment variable that ``settings`` names isn't set, or the store's address is invalid.
    """
    interrupt_httpx()
    export_in_batches()
    settings = settings or ServeConfig()
    return AgentApplication(
        ServedAgent(agent, name, version, settings.tool_items, example_questions), settings, loopback
    )


class AgentApplication(Starlette):
    """A Starlette application whose open runs can be stopped."""

    def __init__(self, served: ServedAgent, settings: ServeConfig, loopback: bool):
        self._open_runs = OpenRuns()
        limit = RequestLimit(settings.max_requests, settings.max_waiting)
        max_bytes = int(settings.max_body_mb * 1_000_000)
        storage = None if settings.store_env is None else _storage(settings, max_bytes)
        information = Information(served, PATHS, stores=storage is not None)
        endpoints = {
            path: ResponsesEndpoint(served, dialect, limit, self._open_runs, storage) for path, dialect in PATHS.items()
        }
        page = page_routes() if settings.page else []
        feedback = [FeedbackEndpoint(served).route] if settings.page else []
        super().__init__(
            routes=[
                *page,
                *feedback,
                *(Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()),
                *StoredResponses(storage).routes,
                *information.routes,
            ],
            middleware=[
                Middleware(RequestId),
                Middleware(
                    Access,
                    loopback=loopback,
                    allowed_hosts=settings.allowed_hosts,
                    cors=settings.cors,
                    api_key=settings.api_key(),
                    open_paths={*OPEN_PATHS, *(route.path for route in page)},
                ),
                Middleware(BodyLimit, max_bytes=max_bytes, seconds=settings.body_seconds),
            ],
            exception_handlers={HTTPException: on_http_exception, Exception: on_exception},
        )

    def stop(self) -> None:
        """Cancel every open request; each stream ends with a terminal event."""
        self._open_runs.stop()


def _storage(settings: ServeConfig, max_bytes: int) -> RequestStorage | None:
    from oneturn.serving.store.request import build_storage  # imports SQLAlchemy, which costs time

    return build_storage(settings, max_bytes)
