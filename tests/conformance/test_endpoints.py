"""check_endpoint and ``oneturn check`` against small HTTP servers, correct and faulty."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import pytest
from typer.testing import CliRunner

from oneturn.cli import app
from oneturn.conformance import EndpointReport, Severity, check_endpoint
from oneturn.conformance.endpoint import address
from oneturn.errors import ConfigError, EndpointError

Reply = tuple[int, str, bytes]
"""Status, content type, body."""


class ServerRequest:
    """A request that the server received."""

    def __init__(self, body: Any, headers: dict[str, str], path: str, number: int):
        self.body = body if isinstance(body, dict) else {}
        self.headers = headers
        self.path = path
        self.number = number
        self.streamed = self.body.get("stream") is True
        self.good = isinstance(self.body.get("input"), list) and all("content" in item for item in self.body["input"])
        self.question = str(self.body["input"][0]["content"]) if self.good else ""


def message(text: str, id: str = "") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    id = id or f"msg_{uuid4().hex}"
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": content}


def events(item: dict[str, Any]) -> bytes:
    text = item["content"][0]["text"]
    deltas = [
        {"type": "response.output_text.delta", "item_id": item["id"], "delta": piece} for piece in text.split(" ")
    ]
    for delta in deltas[:-1]:
        delta["delta"] += " "
    stream = [*deltas, {"type": "response.output_item.done", "item": item}]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in stream)


def as_stream(text: str, id: str = "", ending: bytes = b"data: [DONE]\n\n") -> Reply:
    return 200, "text/event-stream; charset=utf-8", events(message(text, id)) + ending


def as_json(status: int, body: Any) -> Reply:
    return status, "application/json", json.dumps(body).encode()


def refusal(status: int, message: str) -> Reply:
    return as_json(status, {"error": {"message": message, "type": "invalid_request_error", "code": "invalid_request"}})


def good(request: ServerRequest) -> Reply:
    """A correct endpoint of MLflow's contract."""
    if not request.good:
        return refusal(400, "Send a list of items.")
    return as_stream(echo(request)) if request.streamed else as_json(200, {"output": [message(echo(request))]})


def echo(request: ServerRequest) -> str:
    return f"You said: {request.question}"


@contextmanager
def serving(answer: Callable[[ServerRequest], Reply | None], seen: list[ServerRequest] | None = None) -> Iterator[str]:
    requests = seen if seen is not None else []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(404, "text/plain", b"")

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            try:
                body = json.loads(raw)
            except ValueError:
                body = None
            request = ServerRequest(
                body, {name.lower(): value for name, value in self.headers.items()}, self.path, len(requests)
            )
            requests.append(request)
            if reply := answer(request):
                self.reply(*reply)

        def reply(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            if not body.endswith(b"cut"):
                self.send_header("content-length", str(len(body)))
            else:
                self.send_header("content-length", "100000")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *args: Any) -> None:
            pass  # a client that disconnected

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def graded(answer: Callable[[ServerRequest], Reply | None], **options: Any) -> EndpointReport:
    with serving(answer) as url:
        return check_endpoint(url, **{"concurrency": 4, "timeout": 30, **options})


def test_correct_mlflow_endpoint_passes_with_warnings():
    report = graded(good, echo=True, deterministic=True, concurrency=64)
    assert report.broken_rules() == set(), report.findings
    assert report.passed()
    assert not report.passed(strict=True)
    assert report.contract == "mlflow"
    assert report.broken_rules(Severity.note) == {"string-input-refused", "unknown-input-ignored"}
    assert report.probes[-1].facts == {"streams": 64, "lost": 0, "mixed": 0, "refused": 0}


def test_requests_follow_the_options_and_the_documented_count():
    seen: list[ServerRequest] = []
    with serving(good, seen) as url:
        report = check_endpoint(
            f"{url}/v1",
            key="token-1",
            extra={"model": "m", "custom_inputs": {"a": 1}},
            concurrency=5,
            contract="mlflow",
        )
    assert sum(probe.requests for probe in report.probes) == len(seen) == 14 + 5
    assert {request.path for request in seen} == {"/v1/responses"}
    assert {request.headers["authorization"] for request in seen} == {"Bearer token-1"}
    bodies = [request.body for request in seen if request.good]
    assert all(body["model"] == "m" and body["custom_inputs"]["a"] == 1 for body in bodies)
    markers = [re.findall(r"marker-\w+", request.question)[0] for request in seen[-5:]]
    assert len(set(markers)) == 5


def no_stream(request: ServerRequest) -> Reply:
    return as_json(200, {"output": [message("Hello.")]}) if request.good else refusal(400, "No.")


def failing(request: ServerRequest) -> Reply:
    return as_json(500, {"detail": 'Traceback (most recent call last):\n  File "x", line 1'})


def cut(request: ServerRequest) -> Reply:
    return as_stream(echo(request), ending=b"cut") if request.streamed else good(request)


def unfinished(request: ServerRequest) -> Reply:
    return as_stream(echo(request), ending=b"") if request.streamed else good(request)


def no_json(request: ServerRequest) -> Reply:
    return as_stream(echo(request), ending=b"data: oops\n\ndata: [DONE]\n\n") if request.streamed else good(request)


def accepts_invalid(request: ServerRequest) -> Reply:
    return good(request) if request.good else as_json(200, {"output": []})


def no_error_message(request: ServerRequest) -> Reply:
    return good(request) if request.good else (400, "text/html", b"<h1>Bad</h1>")


def failing_on_invalid(request: ServerRequest) -> Reply:
    return good(request) if request.good else refusal(500, "No.")


def inconsistent(request: ServerRequest) -> Reply:
    return (
        good(request)
        if not request.good or request.streamed
        else as_json(200, {"output": [message("Something else.")]})
    )


def failing_later(request: ServerRequest) -> Reply:
    return good(request) if request.number < 12 else refusal(500, "Out of workers.")


def busy(request: ServerRequest) -> Reply:
    return good(request) if request.number < 14 else refusal(429, "Later.")


def html_response(request: ServerRequest) -> Reply:
    return good(request) if request.streamed or not request.good else (200, "text/html", b"<h1>Hello</h1>")


def custom_error_shape(request: ServerRequest) -> Reply:
    return good(request) if request.good else as_json(400, {"detail": "Send a list of items."})


def constant(request: ServerRequest) -> Reply:
    return as_stream("Hello.", id="msg_1") if request.streamed else good(request)


FAULTS: dict[str, tuple[Callable[[ServerRequest], Reply], set[str]]] = {
    "it doesn't stream": (no_stream, {"not-a-stream"}),
    "it fails with a traceback": (failing, {"http-status", "error-leaks"}),
    "the connection is cut": (cut, {"stream-cut"}),
    "the stream doesn't end": (unfinished, {"stream-cut"}),
    "an event isn't JSON": (no_json, {"stream-json"}),
    "it accepts invalid requests": (accepts_invalid, {"bad-request-accepted"}),
    "the response is a page": (html_response, {"http-body"}),
    "its errors have no message": (no_error_message, {"http-error-mute"}),
    "it fails at bad requests": (failing_on_invalid, {"http-status"}),
    "stream and response differ": (inconsistent, {"stream-differs"}),
    "it fails after clients disconnect": (failing_later, {"healthy-after-disconnect", "http-status"}),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faulty_endpoint_breaks_the_expected_rules(case: str):
    answer, expected = FAULTS[case]
    assert graded(answer, concurrency=2, deterministic=True).broken_rules() == expected


@pytest.mark.parametrize(
    ("answer", "rule"),
    [(busy, "refused-under-load"), (constant, "ids-constant"), (custom_error_shape, "http-error-shape")],
)
def test_weakness_is_a_warning(answer: Callable[[ServerRequest], Reply], rule: str):
    report = graded(answer)
    assert report.broken_rules() == set()
    assert rule in report.broken_rules(Severity.warning)


def test_markers_of_other_requests_are_reported_as_mixed():
    questions: list[str] = []
    together = threading.Barrier(4, timeout=30)

    def mix_answers(request: ServerRequest) -> Reply:
        if request.number < 14:
            return good(request)
        questions.append(request.question)
        together.wait()
        return as_stream(f"Questions: {' '.join(questions)}")

    report = graded(mix_answers, echo=True)
    assert report.broken_rules() == {"marker-mixed"}
    assert report.probes[-1].facts == {"streams": 4, "lost": 0, "mixed": 4, "refused": 0}


def test_unresponsive_endpoint_gets_one_request():
    finished = threading.Event()
    seen: list[ServerRequest] = []

    def silent(request: ServerRequest) -> None:
        finished.wait(60)

    with serving(silent, seen) as url:
        report = check_endpoint(url, timeout=0.2)
        finished.set()
    assert {"answer-late", "stream-cut"} == report.broken_rules()
    assert len(seen) == 1


def test_unreachable_endpoint_raises():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(EndpointError, match=f"Can't reach http://127.0.0.1:{port}/responses") as caught:
        check_endpoint(f"http://127.0.0.1:{port}", timeout=5)
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize(("status", "advice"), [(401, "--key-env"), (403, "token"), (404, "URL")])
def test_refused_access_raises(status: int, advice: str):
    with pytest.raises(EndpointError, match=f"answered with {status}.*{advice}"):
        graded(lambda request: refusal(status, "No."))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"concurrency": 65}, "at most 64"), ({"question": "Hello?"}, "no {marker}")],
)
def test_invalid_options_raise(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        check_endpoint("http://127.0.0.1:1", **options)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/responses"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/responses"),
        ("http://127.0.0.1:8000/invocations", "http://127.0.0.1:8000/invocations"),
        ("https://host/v1/responses/", "https://host/v1/responses"),
        ("https://host/serving-endpoints/desk", "https://host/serving-endpoints/desk/invocations"),
        ("https://host/serving-endpoints/responses", "https://host/serving-endpoints/responses"),
    ],
)
def test_address_appends_the_path(url: str, expected: str):
    assert address(url) == expected


def test_invalid_url_raises():
    with pytest.raises(EndpointError, match="'desk' is not an endpoint URL"):
        address("desk")


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1", **environment}).invoke(app, ["check", *arguments])


def test_command_prints_the_report_and_passes():
    with serving(good) as url:
        result = run(url, "--concurrency", "3", "--echo")
    assert result.exit_code == 0, result.output
    assert f"{url}/responses: MLflow's ResponsesAgent" in result.output
    assert re.search(r"3 at once +3 +0 +", result.output)
    assert "warning created-missing: `response.created` is the first event." in result.output
    assert re.fullmatch(r"passed MLflow's ResponsesAgent: 0 errors, \d+ warnings", result.output.splitlines()[-1])


def test_command_fails_on_errors():
    with serving(cut) as url:
        result = run(url, "--concurrency", "0")
    assert result.exit_code == 1
    assert "error stream-cut: A stream ends with a terminal event" in result.output
    assert re.search(r"  stream: the connection broke .* \(and 1 more\)", result.output)
    assert "did not pass MLflow's ResponsesAgent: 1 error, " in result.output


def test_command_fails_on_warnings_with_strict():
    with serving(good) as url:
        assert run(url, "--concurrency", "0", "--strict").exit_code == 1


def test_command_writes_the_report_as_json(tmp_path: Path):
    path = tmp_path / "report.json"
    with serving(cut) as url:
        result = run(url, "--concurrency", "2", "--json", "-")
        run(url, "--concurrency", "2", "--json", str(path))
    for report in (json.loads(result.stdout), json.loads(path.read_text())):
        assert report["passed"] is False
        assert report["url"] == f"{url}/responses"
        assert report["probes"][-1]["facts"] == {"streams": 2, "lost": 2, "mixed": 0, "refused": 0}
        assert list(report) == ["passed", "url", "contract", "probes"]
        assert list(report["probes"][0]) == ["name", "requests", "violations", "facts"]
        assert list(report["probes"][0]["violations"][0]) == ["rule", "severity", "message", "event"]


def test_command_reads_the_token_from_the_environment_and_the_request_from_a_file(tmp_path: Path):
    path = tmp_path / "request.json"
    path.write_text('{"model": "m"}')
    seen: list[ServerRequest] = []
    with serving(good, seen) as url:
        arguments = (url, "--concurrency", "0", "--key-env", "MY_TOKEN", "--request", str(path))
        result = run(*arguments, "--question", "Say {marker}!", MY_TOKEN="token-2")
    assert result.exit_code == 0, result.output
    assert seen[0].headers["authorization"] == "Bearer token-2"
    assert seen[0].body["model"] == "m"
    assert re.fullmatch(r"Say marker-\w+!", seen[0].question)
    assert "token-2" not in result.output


def test_command_exits_with_2_if_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = run(f"http://127.0.0.1:{port}")
    assert result.exit_code == 2
    assert f"\nError: Can't reach http://127.0.0.1:{port}/responses" in result.stderr


def test_help_has_examples():
    text = click.unstyle(run("--help").output)
    assert "oneturn check" in text.partition("Examples:")[2]


USAGE_ERRORS = {
    "too many at once": (("http://x", "--concurrency", "65"), "Invalid value for '--concurrency'"),
    "no marker": (("http://x", "--question", "Hello?"), "has no {marker}"),
    "no token": (("http://x", "--key-env", "NO_SUCH_TOKEN"), "NO_SUCH_TOKEN isn't set"),
    "no folder": (("http://x", "--json", "nowhere/report.json"), "there is no folder for nowhere/report.json"),
    "no file": (("http://x", "--request", "nothing.json"), "can't be read as JSON"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_usage_error_has_a_message(case: str):
    arguments, message = USAGE_ERRORS[case]
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", click.unstyle(result.stderr)).split())
