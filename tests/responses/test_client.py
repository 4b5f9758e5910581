"""The client against an HTTP server with canned responses, valid and invalid."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import oneturn
from oneturn.core.usage import Usage
from oneturn.errors import EndpointError, RequestError
from oneturn.responses.event_stream import decode_events
from oneturn.responses.reply import ApprovalRequest, Source, ToolUse

MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [
        {
            "type": "output_text",
            "text": "Four.",
            "annotations": [
                {"type": "url_citation", "title": "Sums", "url": "sums.md", "start_index": 0, "end_index": 5}
            ],
        }
    ],
}
ITEMS = [
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": '{"a": 2}'},
    {"type": "function_call_output", "call_id": "c1", "output": "4"},
    MESSAGE,
]
DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Four."}
COMPLETED = {
    "type": "response.completed",
    "response": {
        "id": "resp_1",
        "output": ITEMS,
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 1,
            "total_tokens": 4,
        },
        "custom_outputs": {"sure": True},
    },
}
GOOD = [DELTA, COMPLETED]


class Endpoint:
    """The server's canned response, and the last request received."""

    def __init__(self, answer: str, status: int, kind: str):
        self.answer = answer.encode()
        self.status = status
        self.kind = kind
        self.path = ""
        self.headers: Mapping[str, str] = {}  # case-insensitive
        self.body: dict[str, Any] = {}
        self.requests = 0
        self.url = ""
        self.answer_headers: dict[str, str] = {}


@contextmanager
def answering(answer: str, status: int = 200, kind: str = "text/event-stream") -> Iterator[Endpoint]:
    endpoint = Endpoint(answer, status, kind)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            endpoint.requests += 1
            endpoint.path, endpoint.headers = self.path, self.headers
            endpoint.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(endpoint.status)
            self.send_header("content-type", endpoint.kind)
            for name, value in endpoint.answer_headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(endpoint.answer)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        endpoint.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()


def streaming(*events: dict[str, Any]) -> AbstractContextManager[Endpoint]:
    return answering("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")


def refusing(status: int, body: dict[str, Any]) -> AbstractContextManager[Endpoint]:
    return answering(json.dumps(body), status, "application/json")


def test_a_reply_has_all_parts_of_the_response():
    with streaming(*GOOD) as endpoint:
        reply = oneturn.query(endpoint.url, "2 + 2?")
    assert reply.text == "Four."
    assert reply.tool_calls == (ToolUse("add", '{"a": 2}', "4"),)
    assert reply.sources == (Source("Sums", "sums.md"),)
    assert reply.custom_outputs == {"sure": True}
    assert reply.usage == Usage(input_tokens=3, output_tokens=1, cached_tokens=2)
    assert reply.response_id == "resp_1"


def test_the_question_and_the_custom_inputs_are_sent():
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url, "2 + 2?", custom_inputs={"tone": "dry"}, api_key="key-1")
    assert endpoint.body["input"] == [{"role": "user", "content": "2 + 2?"}]
    assert endpoint.body["custom_inputs"] == {"tone": "dry"}
    assert endpoint.body["stream"] is True
    assert endpoint.headers["Authorization"] == "Bearer key-1"


def test_on_event_is_called_with_each_event():
    types: list[str] = []
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url, "?", on_event=lambda event: types.append(event["type"]))
    assert types == ["response.output_text.delta", "response.completed"]


def test_an_abandoned_attempt_is_not_part_of_the_answer():
    begun = {**MESSAGE, "status": "incomplete", "content": [{"type": "output_text", "text": "Fi", "annotations": []}]}
    with streaming({**COMPLETED, "response": {"id": "r", "output": [begun, MESSAGE]}}) as endpoint:
        assert oneturn.query(endpoint.url, "?").text == "Four."


@pytest.mark.parametrize("ending", ["", "/", "/responses", "/invocations"])
def test_the_url_may_end_with_a_path_of_the_protocol(ending: str):
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url + ending, "?")
    assert endpoint.path == "/responses"


@pytest.mark.parametrize("ending", ["", "/invocations"])
def test_a_databricks_endpoint_is_named_by_the_model(ending: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABRICKS_TOKEN", "a-token")
    with streaming(*GOOD) as endpoint:
        oneturn.query(f"{endpoint.url}/serving-endpoints/desk{ending}", "?")
    assert endpoint.path == "/serving-endpoints/responses"
    assert endpoint.body["model"] == "desk"
    assert endpoint.headers["Authorization"] == "Bearer a-token"


def test_a_databricks_endpoint_needs_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("TOKEN", "HOST", "CLIENT_ID", "CONFIG_PROFILE"):
        monkeypatch.delenv(f"DATABRICKS_{name}", raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(EndpointError, match="Set DATABRICKS_TOKEN"):
        oneturn.query("https://workspace.invalid/serving-endpoints/desk", "?")


_INCOMPLETE = (
    "The stream ended with [DONE], but without a terminal event, and the answer isn't complete. Retry, and check the "
    "server's log."
)

Case = tuple[Callable[[], AbstractContextManager[Endpoint]], str, str, "int | None"]

FAILURES: dict[str, Case] = {
    "our server refuses": (
        lambda: refusing(400, {"error": {"message": "No question.", "type": "x", "code": "invalid_request"}}),
        "No question.",
        "invalid_request",
        400,
    ),
    "another MLflow server fails": (lambda: refusing(500, {"detail": "broken"}), "broken", "http_500", 500),
    "Databricks refuses": (
        lambda: refusing(403, {"error_code": "PERMISSION_DENIED", "message": "No access."}),
        "No access. Check the api_key.",
        "PERMISSION_DENIED",
        403,
    ),
    "busy": (
        lambda: refusing(429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Too many."}),
        "Too many. The endpoint is busy or starting; retry later.",
        "REQUEST_LIMIT_EXCEEDED",
        429,
    ),
    "another server fails with a text": (
        lambda: refusing(400, {"error": "No model m."}),
        "No model m.",
        "http_400",
        400,
    ),
    "no JSON": (lambda: answering("<h1>oh</h1>", 502, "text/html"), "HTTP 502 Bad Gateway", "http_502", 502),
    "an error event": (
        lambda: streaming(DELTA, {"type": "error", "code": "lm_error", "message": "The LM is away."}),
        "The LM is away.",
        "lm_error",
        None,
    ),
    "an error object, as MLflow sends it": (lambda: streaming(DELTA, {"error": "oh"}), "oh", "server_error", None),
    "an error in databricks_output": (
        lambda: streaming({"type": "x", "databricks_output": {"error": {"error_code": "TIMEOUT", "message": "Late."}}}),
        "Late.",
        "TIMEOUT",
        None,
    ),
    "response.failed": (
        lambda: streaming({"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}}),
        "m",
        "c",
        None,
    ),
    "response.incomplete": (
        lambda: streaming({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "limit"}}}),
        "The run ended before the answer was complete: limit.",
        "limit",
        None,
    ),
    "no terminal event": (
        lambda: streaming(DELTA),
        _INCOMPLETE,
        "stream_ended",
        None,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_an_endpoint_error_with_message_code_and_status(case: str):
    endpoint_of, message, code, status = FAILURES[case]
    with endpoint_of() as endpoint, pytest.raises(EndpointError) as caught:
        oneturn.query(endpoint.url, "?")
    assert str(caught.value) == message
    assert (caught.value.code, caught.value.status) == (code, status)
    assert endpoint.requests == 1, "a run must not be started twice"


def test_an_interrupted_stream_has_a_partial_reply():
    begun = {**MESSAGE, "status": "incomplete"}
    items = [{"type": "response.output_item.done", "item": item} for item in (*ITEMS[:2], begun)]
    late = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "deadline_exceeded"}}}
    error = {"code": "lm_error", "message": "The LM is away."}
    for end in ([late], [{"type": "error", **error}], [{"type": "error", **error, "error": error}], ["data: {"], []):
        with streaming(*items, *end) as endpoint, pytest.raises(EndpointError) as caught:
            oneturn.query(endpoint.url, "What is 2 + 2?")
        assert caught.value.partial is not None, end
        assert caught.value.partial.text == "Four."
        assert caught.value.partial.tool_calls == (ToolUse("add", '{"a": 2}', "4"),)


@pytest.mark.parametrize(
    ("error", "code", "status", "seconds"),
    [
        ({"code": "rate_limit_exceeded", "headers": {"Retry-After": "7"}}, "rate_limit_exceeded", 429, 7.0),
        ({"type": "too_many_requests", "code": None, "headers": {"retry-after": "0.5"}}, "too_many_requests", 429, 0.5),
        ({"code": "lm_error", "status": 502, "headers": {"x-should-retry": "false"}}, "lm_error", 502, None),
        ({"code": "lm_error", "status": "broken", "headers": "none"}, "lm_error", None, None),
    ],
)
def test_an_error_in_a_stream_has_the_headers_and_the_status_of_one_without_a_stream(
    error: dict[str, Any], code: str, status: int | None, seconds: float | None
):
    event = {"type": "error", "error": {"message": "Slow.", **error}}
    with streaming(DELTA, event) as endpoint, pytest.raises(EndpointError, match=r"^Slow\.$") as caught:
        oneturn.query(endpoint.url, "?")
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == (code, status, seconds)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("soon", None), (None, None)])
def test_retry_after_is_read_from_the_header(header: str | None, seconds: float | None):
    with refusing(429, {"message": "Too many."}) as endpoint:
        endpoint.answer_headers = {"Retry-After": header} if header else {}
        with pytest.raises(EndpointError) as caught:
            oneturn.query(endpoint.url, "?")
    assert caught.value.retry_after == seconds


def test_retry_after_may_be_a_date():
    with refusing(503, {"message": "Starting."}) as endpoint:
        endpoint.answer_headers = {"Retry-After": formatdate(time.time() + 100, usegmt=True)}
        with pytest.raises(EndpointError) as caught:
            oneturn.query(endpoint.url, "?")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 100


WANTED = {
    "type": "mcp_approval_request",
    "id": "mcpr_1",
    "name": "refund",
    "arguments": '{"euros": 200}',
    "server_label": "shop",
}


def test_an_approval_request_can_be_answered():
    with streaming({"type": "response.completed", "response": {"output": [*ITEMS[:2], WANTED]}}) as endpoint:
        reply = oneturn.query(endpoint.url, "Refund it", custom_inputs={"order": 7})
    assert reply.approvals == (ApprovalRequest("mcpr_1", "refund", '{"euros": 200}', "shop"),)
    assert reply.text == ""
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url, reply.answering(approve=False, reason="too much"), custom_inputs={"order": 7})
    verdict = {
        "type": "mcp_approval_response",
        "approval_request_id": "mcpr_1",
        "approve": False,
        "reason": "too much",
    }
    assert endpoint.body["input"] == [{"role": "user", "content": "Refund it"}, *ITEMS[:2], WANTED, verdict]
    assert endpoint.body["custom_inputs"] == {"order": 7}


def test_answering_needs_an_approval_request():
    with streaming(*GOOD) as endpoint:
        reply = oneturn.query(endpoint.url, "?")
    with pytest.raises(RequestError, match="The reply has no call that waits for approval"):
        reply.answering(approve=True)


def test_a_conversation_can_be_continued():
    with streaming(*GOOD) as endpoint:
        reply = oneturn.query(endpoint.url, "What is 2 + 2?")
    with streaming(*GOOD) as endpoint:
        oneturn.query(endpoint.url, [*reply.conversation, {"role": "user", "content": "And 3 + 3?"}])
    questions = [item.get("content") for item in endpoint.body["input"] if item.get("role") == "user"]
    assert questions == ["What is 2 + 2?", "And 3 + 3?"]
    assert endpoint.body["input"][1:-1] == ITEMS


def test_invalid_stream_data_is_an_error():
    with answering("data: {nonsense\n\n") as endpoint, pytest.raises(EndpointError) as caught:
        oneturn.query(endpoint.url, "?")
    assert str(caught.value) == f"{endpoint.url} sent data that isn't a Responses event: {{nonsense."
    assert caught.value.code == "bad_stream"


_LINES = [f"data: {json.dumps(event)}\n\n" for event in GOOD]
_BODY = "".join(_LINES)

VALID_STREAMS = {
    "an event without data": "event: ping\n\n".join(["", *_LINES]),
    "a time to reconnect": f"retry: 3000\n\n{_BODY}",
    "ids alone": "id: 7\n\n".join(["", *_LINES]),
    "empty data": "data:\n\n".join(["", *_LINES]),
    "comments": ": ping\n\n".join(["", *_LINES]),
    "another event, with a text": "event: ping\ndata: 12:00:00\n\n".join(["", *_LINES]),
    "a name before an empty event": f"event: ping\n\n{_BODY}",
    "CRLF": _BODY.replace("\n", "\r\n"),
    "CR": _BODY.replace("\n", "\r"),
    "a byte order mark": f"\ufeff{_BODY}",
    "data in several lines": _BODY.replace(', "', ',\ndata:"'),
    "line separators of Unicode": _BODY.replace("Four.", "Four.\u2028"),
}


@pytest.mark.parametrize("body", VALID_STREAMS.values(), ids=VALID_STREAMS.keys())
def test_every_valid_event_stream_is_read(body: str):
    with answering(body) as endpoint:
        assert oneturn.query(endpoint.url, "2 + 2?").text.rstrip() == "Four."
    in_bytes = [bytes([byte]) for byte in body.encode()]
    assert list(decode_events(in_bytes)) == list(decode_events([body.encode()]))


def test_an_event_without_its_empty_line_is_cut():
    assert list(decode_events([_BODY.encode()[:-1]])) == [DELTA]


def test_a_server_that_does_not_stream_is_read():
    response = {**COMPLETED["response"], "status": "completed"}
    types: list[str] = []
    with answering(json.dumps(response), kind="application/json; charset=utf-8") as endpoint:
        reply = oneturn.query(endpoint.url, "2 + 2?", on_event=lambda event: types.append(event["type"]))
    assert (reply.text, reply.response_id, types) == ("Four.", "resp_1", ["response.completed"])


NO_ANSWERS = {
    "a page to log in": ("<h1>Log in</h1>", "text/html", "127.0.0.1 answered with text/html, not with a Responses"),
    "nothing": ("", "text/plain", "127.0.0.1 answered with text/plain, not with a Responses stream. Check that http"),
    "other JSON": ('{"choices": []}', "application/json", "The response has no list of output items: {'choices': []}."),
    "no object": ("[1]", "application/json", "The response has no list of output items: [1]."),
    "no JSON": ("{", "application/json", "sent data that isn't a Responses event: Expecting"),
}


@pytest.mark.parametrize(("body", "kind", "message"), NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_an_answer_that_is_no_response_is_described(body: str, kind: str, message: str):
    with answering(body, kind=kind) as endpoint, pytest.raises(EndpointError) as caught:
        oneturn.query(endpoint.url, "?")
    assert message in str(caught.value)
    assert caught.value.code == "bad_stream"


def test_an_error_with_status_200_is_an_error():
    body = '{"error": {"code": "c", "message": "It broke."}}'
    with answering(body, kind="application/json") as endpoint, pytest.raises(EndpointError, match=r"^It broke\.$"):
        oneturn.query(endpoint.url, "?")


def test_an_unreachable_host_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(EndpointError) as caught:
        oneturn.query(url, "?")
    assert str(caught.value) == f"Can't reach {url}. Is the agent served there? Start it with: oneturn serve"


@pytest.mark.parametrize("url", ["agent", "ftp://host/", ""])
def test_an_invalid_url_is_an_error(url: str):
    with pytest.raises(EndpointError, match=r"isn't an endpoint URL; pass one such as http://127.0.0.1:8000."):
        oneturn.query(url, "?")


@pytest.mark.parametrize("odd", [None, [], 7, "text"])
def test_an_event_that_is_no_object_is_skipped_or_an_endpoint_error(odd: Any):
    with streaming(odd, *GOOD) as endpoint:
        if odd is None:
            assert oneturn.query(endpoint.url, "2 + 2?").text == "Four."
        else:
            with pytest.raises(EndpointError) as caught:
                oneturn.query(endpoint.url, "2 + 2?")
            assert caught.value.code == "bad_stream"
