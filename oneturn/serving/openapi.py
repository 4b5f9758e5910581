"""The OpenAPI document of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oneturn.responses.request_fields import ACCEPTED_VALUES, RequestFields

_SCHEMAS = "#/components/schemas/"
_TEXT_PARTS = ["input_text", "output_text"]

_STORED_PATH = "/v1/responses/{id}"
_MODEL_PATH = "/v1/models/{id}"
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_ERROR = {
    "description": "An error.",
    "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}Error"}}},
}
_ITEM_REFERENCE = {
    "description": "An output item of a stored response.",
    "type": "object",
    "required": ["id"],
    "properties": {"type": {"enum": ["item_reference", None]}, "id": {"type": "string"}},
}

_ITEMS: dict[str, Any] = {
    "Message": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "type": {"const": "message"},
            "role": {"enum": ["user", "assistant", "system", "developer"]},
            "content": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "minItems": 1,
                        "items": {"anyOf": [{"$ref": f"{_SCHEMAS}{name}"} for name in ("Text", "Image", "File")]},
                    },
                ]
            },
        },
    },
    "Text": {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"enum": _TEXT_PARTS}, "text": {"type": "string"}},
    },
    "Image": {
        "type": "object",
        "required": ["type", "image_url"],
        "properties": {"type": {"const": "input_image"}, "image_url": {"type": "string", "format": "uri"}},
    },
    "File": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"const": "input_file"},
            "filename": {"type": "string"},
            "file_data": {"type": "string", "description": "A data: URI."},
            "file_id": {"type": "string"},
        },
    },
    "OutputItem": {
        "description": "An item of an earlier response, sent back unchanged.",
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {
                "enum": [
                    "message",
                    "reasoning",
                    "function_call",
                    "function_call_output",
                    "mcp_call",
                    "mcp_approval_request",
                ]
            }
        },
    },
    "ApprovalResponse": {
        "type": "object",
        "required": ["type", "approval_request_id", "approve"],
        "properties": {
            "type": {"const": "mcp_approval_response"},
            "approval_request_id": {"type": "string"},
            "approve": {"type": "boolean"},
            "reason": {"type": ["string", "null"]},
        },
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["type", "code", "message", "param"],
                "properties": {
                    "type": {
                        "enum": ["invalid_request", "not_found", "too_many_requests", "model_error", "server_error"]
                    },
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                },
            }
        },
    },
    "Response": {
        "type": "object",
        "required": ["object", "status", "output"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "response"},
            "status": {"enum": ["completed", "incomplete", "failed", "in_progress"]},
            "output": {"type": "array", "items": {"type": "object", "required": ["type"]}},
            "usage": {"type": ["object", "null"]},
        },
    },
}


def openapi_document(info: Mapping[str, Any], paths: Mapping[str, str], stores: bool = False) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        info: the description at ``/agent/info``.
        paths: the paths that run the agent, with their dialects.
        stores: whether the server has a response store, for its ``open_responses`` paths.
    """
    schemas = {**_ITEMS, **_request_schemas(info)}
    if outputs := info.get("outputs"):
        schemas["Response"] = {
            **_ITEMS["Response"],
            "properties": {**_ITEMS["Response"]["properties"], "custom_outputs": {"type": "object"}},
        }
        schemas["Outputs"] = _without_definitions(outputs, schemas)
    if stores:
        schemas |= {"ItemReference": _ITEM_REFERENCE, "StoredRequest": _stored_request(schemas["Request"])}
    runs = {path: {"post": _run_operation(path, dialect, stores)} for path, dialect in paths.items()}
    if stores:
        runs[_STORED_PATH] = _stored_operations()
    return {
        "openapi": "3.1.0",
        "info": {"title": info["name"], "version": str(info.get("version") or "unversioned")},
        "paths": {**runs, **_descriptions(), _MODEL_PATH: _model_operation()},
        "components": {"schemas": schemas},
    }


def _request_schemas(info: Mapping[str, Any]) -> dict[str, Any]:
    request = RequestFields.model_json_schema(ref_template=_SCHEMAS + "{model}")
    schemas: dict[str, Any] = request.pop("$defs", {})
    properties = request["properties"]
    items = [{"$ref": f"{_SCHEMAS}{name}"} for name in ("Message", "OutputItem", "ApprovalResponse")]
    properties["input"]["anyOf"] = [{"type": "string"}, {"type": "array", "items": {"anyOf": items}}]
    for name, (values, advice) in ACCEPTED_VALUES.items():
        properties[name] = {"enum": [*values, None], **({"description": f"Else: {advice}."} if advice else {})}
    if inputs := info.get("inputs"):
        inputs = _without_definitions(inputs, schemas)
        inputs = {**inputs, "required": [], "additionalProperties": False}
        properties["custom_inputs"] = {"anyOf": [inputs, {"type": "null"}]}
    schemas["Request"] = request
    return schemas


def _without_definitions(schema: Mapping[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A schema whose definitions are moved to the components."""
    definitions = schema.get("$defs", {})
    names = {f"#/$defs/{name}": f"{_SCHEMAS}Field{name}" for name in definitions}
    schemas.update({f"Field{name}": _renamed(definition, names) for name, definition in definitions.items()})
    return {name: _renamed(value, names) for name, value in schema.items() if name != "$defs"}


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, Mapping):
        return {
            key: names.get(value, value) if key == "$ref" else _renamed(value, names) for key, value in schema.items()
        }
    return [_renamed(inner, names) for inner in schema] if isinstance(schema, list) else schema


def _stored_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a request that may use the store."""
    properties = request["properties"]
    text, items = properties["input"]["anyOf"]
    reference = {"$ref": f"{_SCHEMAS}ItemReference"}
    return {
        **request,
        "properties": {
            **properties,
            "input": {"anyOf": [text, {**items, "items": {"anyOf": [*items["items"]["anyOf"], reference]}}]},
            "store": {"type": ["boolean", "null"], "description": "Whether to store the response; true by default."},
            "previous_response_id": {"type": ["string", "null"], "description": "A stored response to continue."},
        },
    }


def _stored_operations() -> dict[str, Any]:
    deleted = {
        "type": "object",
        "required": ["id", "object", "deleted"],
        "properties": {"id": {"type": "string"}, "object": {"const": "response"}, "deleted": {"const": True}},
    }
    return {
        "parameters": [_ID],
        "get": _operation("A stored response.", "get_response", {"$ref": f"{_SCHEMAS}Response"}),
        "delete": _operation("Delete a stored response.", "delete_response", deleted),
    }


def _model_operation() -> dict[str, Any]:
    operation = _operation("The agent; 404 for another id.", "get_model", {"type": "object"})
    return {"parameters": [_ID], "get": operation}


def _operation(summary: str, id: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    ok = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "operationId": id, "responses": {"200": ok, "default": _ERROR}}


def _run_operation(path: str, dialect: str, stores: bool) -> dict[str, Any]:
    request = "StoredRequest" if stores and dialect == "open_responses" else "Request"
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255}}
    response = {"schema": {"$ref": f"{_SCHEMAS}Response"}}
    # Without a type: some tools check the whole stream, a text, and others each event.
    events = {
        "schema": {"description": "Server-sent events; the data of each is a JSON object, that of the last [DONE]."}
    }
    return {
        "summary": f"Run the agent; the dialect is {dialect}.",
        "operationId": path.strip("/").replace("/", "_"),
        **({"parameters": [key]} if stores else {}),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{request}"}}},
        },
        "responses": {
            "200": {
                "description": "The response, or with stream: true its events.",
                "content": {"application/json": response, "text/event-stream": events},
            },
            "default": _ERROR,
        },
    }


def _descriptions() -> dict[str, Any]:
    summaries = {
        "/v1/models": "The agent, as the only model.",
        "/health": "Whether the process is alive.",
        "/ready": "Whether the agent can answer; 503 if not.",
        "/agent/info": "Name, version, fingerprint, JSON schemas of inputs and outputs, and tools of the agent.",
        "/openapi.json": "This document.",
    }
    ok = {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {path: {"get": {"summary": text, "responses": {"200": ok}}} for path, text in summaries.items()}
