"""Model Serving's front door in the stand-in of a workspace: it lets a real server answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import httpx

from tests.databricks.workspace import Answer, Call, Workspace, refused


def answer_by(workspace: Workspace, name: str, url: str) -> None:
    """Let the server at ``url`` answer what the endpoint ``name`` is asked, by either of its two addresses."""

    def ask(call: Call) -> Answer:
        asked = call.parts.get("name") or call.body.get("model")
        if asked != name:
            return refused(404, "RESOURCE_DOES_NOT_EXIST", f"The given endpoint does not exist: {asked}.")
        client = httpx.Client(timeout=60)
        response = client.send(client.build_request("POST", f"{url}/invocations", json=call.body), stream=True)
        kept = {"Content-Type": response.headers["content-type"], "x-request-id": "r-1"}
        if "event-stream" not in kept["Content-Type"]:
            with contextlib.closing(client):
                return Answer(response.status_code, response.read(), kept)
        return Answer(response.status_code, _pieces(client, response), kept)

    workspace.on("POST", "/serving-endpoints/(?P<name>[^/]+)/invocations", ask)
    workspace.on("POST", "/serving-endpoints/responses", ask)


def _pieces(client: httpx.Client, response: httpx.Response) -> Iterator[bytes]:
    with contextlib.closing(client), contextlib.closing(response):
        yield from (piece for piece in response.iter_bytes() if piece)


def events(text: str) -> list[dict]:
    """The events of a stream."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
