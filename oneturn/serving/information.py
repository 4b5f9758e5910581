"""What a server says about itself and its agent: health, readiness, models, description, OpenAPI document."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import mlflow
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oneturn.errors import AgentError
from oneturn.responses import ResponsesAdapter
from oneturn.responses.errors import to_client_error
from oneturn.responses.request import message_fields
from oneturn.responses.text_format import input_schema, output_schema
from oneturn.serving.http_errors import error_response, invalid_request
from oneturn.serving.openapi import openapi_document
from oneturn.serving.page.traces import trace_url_template
from oneturn.serving.served_agent import ServedAgent


class Information:
    """The endpoints that describe a server.

    Args:
        served: the agent.
        paths: the paths that run it, with their dialects.
        stores: whether the server has a response store.
    """

    def __init__(self, served: ServedAgent, paths: Mapping[str, str], stores: bool = False):
        self._served = served
        self._paths = paths
        self._stores = stores
        self._started = int(time.time())

    @property
    def routes(self) -> list[Route]:
        """The routes of the endpoints."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{id}", self.model),
            Route("/health", self.health),
            Route("/ready", self.ready),
            Route("/agent/info", self.agent_info),
            Route("/openapi.json", self.openapi),
        ]

    async def health(self, request: Request) -> JSONResponse:
        """The process is alive."""
        return JSONResponse({"status": "healthy"})

    async def ready(self, request: Request) -> JSONResponse:
        """The agent's program can be built; 503 if not."""
        try:
            await run_in_threadpool(self._build)
        except Exception as error:
            failure = to_client_error(error)
            return error_response(AgentError(str(failure), failure.code, 503, retryable=True))
        return JSONResponse({"status": "ready"})

    async def models(self, request: Request) -> JSONResponse:
        """The agent, as the only model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> JSONResponse:
        """The agent; 404 for another id."""
        model, id = self._model(), request.path_params["id"]
        if id != model["id"]:
            message = f"The server has no model {id!r:.80}; the only one is {model['id']!r}."
            return error_response(invalid_request(message, "model", 404))
        return JSONResponse(model)

    async def agent_info(self, request: Request) -> JSONResponse:
        """The agent's name, version, fingerprint; schemas of inputs and outputs, their part in messages; tools."""
        return JSONResponse(await run_in_threadpool(self._info))

    async def openapi(self, request: Request) -> JSONResponse:
        """The OpenAPI document."""
        return JSONResponse(await run_in_threadpool(lambda: openapi_document(self._info(), self._paths, self._stores)))

    def _model(self) -> dict[str, Any]:
        return {"id": self._served.name, "object": "model", "created": self._started, "owned_by": "oneturn"}

    def _build(self) -> None:
        if isinstance(self._served.agent, ResponsesAdapter):
            _ = self._served.agent.program

    def _info(self) -> dict[str, Any]:
        served = self._served
        info: dict[str, Any] = {
            "name": served.name,
            "version": served.version,
            "fingerprint": served.fingerprint,
            "use_case": "agent",
            "agent_api": "responses",
            "mlflow_version": mlflow.__version__,
            "example_questions": list(served.example_questions),
            "trace_url": trace_url_template(),
        }
        if isinstance(served.agent, ResponsesAdapter):
            program = served.agent.program
            signature = program.signature
            info["inputs"] = input_schema(signature)
            info["outputs"] = output_schema(signature)
            info["message"] = {
                **message_fields(signature),
                "answer": program.answer_field,
                "citations": list(program.citing_fields),
            }
            info["tools"] = [
                {"name": name, "description": tool.desc, "parameters": {"type": "object", "properties": tool.args}}
                for name, tool in served.tools.items()
            ]
        return info
