"""Serve one contender: ``python -m benchmarks.serving.server NAME PORT STUB [TRACKING]``.

``GET /cpu`` writes pending traces and returns the CPU seconds of the process. ``GET /memory`` returns its memory
(Linux).
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import uvicorn
from mlflow.genai.agent_server import AgentServer, invoke, stream
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.serving.contenders import AGENTS, stub_lm


def _naive_app(agent: Any) -> ASGIApp:
    """Build MLflow's ``AgentServer`` with synchronous handlers, as in its documentation."""

    @invoke()
    def answer(request: Any) -> Any:
        return agent.predict(request)

    @stream()
    def answer_stream(request: Any) -> Iterator[Any]:
        yield from agent.predict_stream(request)

    return AgentServer("ResponsesAgent").app


def _with_metrics(app: ASGIApp) -> ASGIApp:
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "/cpu":
            await asyncio.to_thread(mlflow.flush_trace_async_logging)
            await JSONResponse(time.process_time())(scope, receive, send)
        elif scope.get("path") == "/memory":
            gc.collect()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            await JSONResponse({"resident": resident, "objects": len(gc.get_objects())})(scope, receive, send)
        else:
            await app(scope, receive, send)

    return wrapper


def main() -> None:
    """Serve until the process is stopped."""
    name, port, stub, *tracking = sys.argv[1:]
    if tracking:
        mlflow.set_tracking_uri(tracking[0])
        mlflow.set_experiment("serving")
    else:
        mlflow.tracing.disable()
    agent = AGENTS[name](stub_lm(stub))
    if name == "naive":
        app = _naive_app(agent)
    else:
        from oneturn.serving import application

        app = application(agent)
    uvicorn.run(_with_metrics(app), host="127.0.0.1", port=int(port), log_level="error", interface="asgi3")


if __name__ == "__main__":
    main()
