"""What a server does with slow, large and broken requests: an error object, and the next request is unharmed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import oneturn
from oneturn.config import ServeConfig
from oneturn.serving import protocol
from oneturn.serving.protocol import TimedProtocol
from oneturn.serving.server import server_config
from oneturn.testing import ScriptedLM, finish

QUESTION = {"input": [{"role": "user", "content": "?"}]}
JSON = {"content-type": "application/json"}


def agent() -> oneturn.ResponsesAdapter:
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="Yes.")] * 999))
    return oneturn.ResponsesAdapter(program)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oneturn.running_server(agent(), settings=ServeConfig(max_body_mb=1)) as url:
        yield url


def connect(url: str) -> socket.socket:
    parts = httpx.URL(url)
    return socket.create_connection((parts.host, parts.port), timeout=30)


def head(**headers: Any) -> bytes:
    fields = {"Host": "localhost", "Content-Type": "application/json", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join(["POST /responses HTTP/1.1", *lines, "", ""]).encode()


def read_response(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read one response with a Content-Length from a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += (piece := connection.recv(65536))
        assert piece, data
    start, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in start.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return int(start.split()[1]), json.loads(body)


def test_a_large_body_is_refused_without_reading_it(url: str):
    with connect(url) as connection:
        connection.sendall(head(Content_Length=1_000_001))
        status, body = read_response(connection)
    assert status == 413
    message = "The request's body is larger than 1,000,000 bytes (serve.max_body_mb)."
    assert body["error"] == {"type": "invalid_request", "code": "invalid_request", "message": message, "param": ""}


def test_a_large_body_without_a_length_is_refused(url: str):
    chunk = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
    with connect(url) as connection:
        connection.sendall(head(Transfer_Encoding="chunked") + chunk * 11)
        assert read_response(connection)[0] == 413
        connection.sendall(b"0\r\n\r\n")
        sent = json.dumps(QUESTION).encode()
        connection.sendall(head(Content_Length=len(sent)) + sent)
        assert read_response(connection)[0] == 200


def test_a_body_of_the_largest_size_is_read(url: str):
    sent = json.dumps({**QUESTION, "metadata": {"a": ""}}).encode()
    sent += b" " * (1_000_000 - len(sent))
    assert httpx.post(f"{url}/responses", content=sent, headers=JSON).status_code == 200


def test_a_slow_body_gets_an_error():
    with oneturn.running_server(agent(), settings=ServeConfig(body_seconds=0.05)) as url, connect(url) as connection:
        connection.sendall(head(Content_Length=100) + b"{")
        status, body = read_response(connection)
        assert (status, body["error"]["message"]) == (408, "The request's body didn't arrive within 0.05 s.")
        assert connection.recv(1) == b""
        assert httpx.post(f"{url}/responses", json=QUESTION).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /respo", head(Content_Length=9)[:-2]], ids=["nothing", "line", "headers"])
def test_a_slow_head_ends_the_connection(sent: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.05)
    with oneturn.running_server(agent()) as url, connect(url) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_a_slow_second_request_ends_the_connection(monkeypatch: pytest.MonkeyPatch):
    with oneturn.running_server(agent()) as url, connect(url) as connection:
        sent = json.dumps(QUESTION).encode()
        connection.sendall(head(Content_Length=len(sent)) + sent)
        assert read_response(connection)[0] == 200
        monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.05)
        connection.sendall(b"POST /respo")
        assert connection.recv(1) == b""


def test_a_client_that_does_not_read_loses_its_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "SEND_SECONDS", 0.05)
    lost = threading.Event()
    monkeypatch.setattr(TimedProtocol, "connection_lost", _then(TimedProtocol.connection_lost, lost.set))
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(finish(answer="x" * 20_000_000), piece=1_000_000))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url, connect(url) as connection:
        sent = json.dumps(QUESTION).encode()
        connection.sendall(head(Content_Length=len(sent)) + sent)
        assert lost.wait(30)


def _then(method: Callable[..., None], then: Callable[[], None]) -> Callable[..., None]:
    def both(*args: Any) -> None:
        method(*args)
        then()

    return both


def test_an_idle_connection_is_kept_for_75_seconds():
    assert server_config("x:y").timeout_keep_alive >= 75


def test_what_is_not_http_gets_an_error_object(url: str):
    with connect(url) as connection:
        connection.sendall(b"GARBAGE\r\n\r\n")
        status, body = read_response(connection)
        assert (status, body["error"]["type"], body["error"]["code"]) == (400, "invalid_request", "invalid_request")
        assert connection.recv(1) == b""


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json2", "é"])
def test_a_body_of_another_type_is_refused(url: str, kind: str | None):
    headers = {} if kind is None else {"content-type": kind.encode()}
    response = httpx.post(f"{url}/responses", content=json.dumps(QUESTION), headers=headers)
    assert response.status_code == 415
    assert "send JSON with Content-Type: application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"])
def test_a_body_of_json_is_read(url: str, kind: str):
    content = json.dumps(QUESTION)
    assert httpx.post(f"{url}/responses", content=content, headers={"content-type": kind}).status_code == 200


def item(**fields: Any) -> str:
    return json.dumps({"input": [{"role": "user", "content": "?"}, fields]})


def content(*parts: Any) -> str:
    return json.dumps({"input": [{"role": "user", "content": list(parts)}]})


BROKEN = {
    "nothing": "",
    "not JSON": "{",
    "UTF-16 half": b"\xff\xfe{",
    "not UTF-8": b'{"input": "\xff"}',
    "nested arrays": "[" * 100_000 + "]" * 100_000,
    "nested input": '{"input": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{"custom_inputs": ' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    "nested a little": json.dumps(QUESTION)[:-1] + ', "custom_inputs": {"a": ' + "[" * 500 + "]" * 500 + "}}",
    "NaN": json.dumps(QUESTION)[:-1] + ', "temperature": NaN}',
    "infinite": json.dumps(QUESTION)[:-1] + ', "temperature": 1e999}',
    "a long number": json.dumps(QUESTION)[:-1] + ', "max_output_tokens": ' + "9" * 5000 + "}",
    "a list": "[]",
    "a text": '"?"',
    "null": "null",
    "half a surrogate as a name": '{"input": "?", "\\ud800": 1}',
    "half a surrogate as a custom input": '{"input": "?", "custom_inputs": {"\\ud800": 1}}',
    "half a surrogate in stream": '{"input": "?", "stream": "\\ud800"}',
    "half a surrogate as a role": '{"input": [{"role": "\\ud800", "content": "?"}]}',
    "half a surrogate as a type": item(type="\ud800"),
    "stream is a text": '{"input": "?", "stream": "true"}',
    "input is a number": '{"input": 1}',
    "input is an object": '{"input": {}}',
    "items are texts": '{"input": ["?"]}',
    "items are null": '{"input": [null]}',
    "content is a number": '{"input": [{"role": "user", "content": 1}]}',
    "content is an object": '{"input": [{"role": "user", "content": {}}]}',
    "parts are texts": content("?"),
    "parts are null": content(None),
    "a part's text is a number": content({"type": "input_text", "text": 1}),
    "an image that isn't one": content({"type": "input_image", "image_url": "data:image/png;base64,%%%"}),
    "an image of a number": content({"type": "input_image", "image_url": 7}),
    "an image of a local path": content({"type": "input_image", "image_url": "file:///etc/passwd"}),
    "a file of a number": content({"type": "input_file", "file_data": 7}),
    "a file that isn't one": content({"type": "input_file", "file_data": "data:application/pdf;base64,%%%"}),
    "custom_inputs is a list": '{"input": "?", "custom_inputs": [1]}',
    "context is a text": '{"input": "?", "context": "c"}',
    "metadata is a list": '{"input": "?", "metadata": [1]}',
    "temperature is a text": '{"input": "?", "temperature": "hot"}',
    "text is a number": '{"input": "?", "text": 3}',
    "text.format is a text": '{"input": "?", "text": {"format": "json"}}',
    "an approval of nothing": item(type="mcp_approval_response", approval_request_id="é", approve=True),
    "an approval of half a surrogate": item(type="mcp_approval_response", approval_request_id="\ud800", approve=True),
    "an approval by a text": item(type="mcp_approval_response", approval_request_id="mcpr_1", approve="yes"),
    "a call without arguments": item(type="function_call", call_id="c", name="n"),
    "a call's arguments are an object": item(type="function_call", call_id="c", name="n", arguments={}),
    "a result of nothing": item(type="function_call_output", call_id=None, output="o"),
}


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
@pytest.mark.parametrize("case", BROKEN)
def test_bad_input_is_refused_and_the_connection_survives(case: str, path: str, url: str):
    with httpx.Client(base_url=url, headers=JSON) as client:
        response = client.post(path, content=BROKEN[case])
        port = client_port(response)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["type"], set(error)) == ("invalid_request", {"type", "code", "message", "param"})
        answered = client.post(path, json=QUESTION)
        assert answered.status_code == 200
        assert client_port(answered) == port  # the same connection


def client_port(response: httpx.Response) -> int:
    address: tuple[str, int] = response.extensions["network_stream"].get_extra_info("client_addr")
    return address[1]


HARMLESS = {
    "half a surrogate in a question": '{"input": "Hello \\ud83d"}',
    "non-ASCII ids": json.dumps({**QUESTION, "context": {"conversation_id": "é😀", "user_id": "用户"}}),
    "half a surrogate in an id": '{"input": "?", "context": {"conversation_id": "\\ud800", "user_id": "u"}}',
    "half a surrogate in metadata": '{"input": "?", "metadata": {"a": "\\udfff"}}',
    "a non-ASCII item id": json.dumps({"input": [{"id": "é", "type": "message", "role": "user", "content": "?"}]}),
    "a non-ASCII call id": json.dumps(
        {
            "input": [
                {"type": "function_call", "id": "é", "call_id": "ü", "name": "ñ", "arguments": "{"},
                {"type": "function_call_output", "call_id": "ü", "output": "\ud800"},
                {"role": "user", "content": "?"},
            ]
        }
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", HARMLESS)
def test_odd_texts_are_answered(case: str, stream: bool, url: str):
    sent = HARMLESS[case][:-1] + f', "stream": {json.dumps(stream)}}}'
    response = httpx.post(f"{url}/v1/responses", content=sent, headers=JSON)
    assert response.status_code == 200, response.text
    assert "Yes." in response.text
