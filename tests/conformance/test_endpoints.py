"""Endpoints of all kinds, good and bad, each a small HTTP server; and the command that grades them."""

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
from oneturn.conformance import Report, Severity, check_endpoint
from oneturn.conformance.endpoint import address
from oneturn.errors import ConfigError, EndpointError

Reply = tuple[int, str, bytes]
"""Status, content type, body."""


class Asked:
    """A request as the server got it."""

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
    told = [*deltas, {"type": "response.output_item.done", "item": item}]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)


def as_stream(text: str, id: str = "", ending: bytes = b"data: [DONE]\n\n") -> Reply:
    return 200, "text/event-stream; charset=utf-8", events(message(text, id)) + ending


def as_json(status: int, body: Any) -> Reply:
    return status, "application/json", json.dumps(body).encode()


def refusal(status: int, message: str) -> Reply:
    return as_json(status, {"error": {"message": message, "type": "invalid_request_error", "code": "invalid_request"}})


def good(asked: Asked) -> Reply:
    """An endpoint of MLflow's contract without a fault."""
    if not asked.good:
        return refusal(400, "Send a list of items.")
    return as_stream(said(asked)) if asked.streamed else as_json(200, {"output": [message(said(asked))]})


def said(asked: Asked) -> str:
    return f"You said: {asked.question}"


@contextmanager
def serving(answer: Callable[[Asked], Reply | None], seen: list[Asked] | None = None) -> Iterator[str]:
    requests = seen if seen is not None else []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(404, "text/plain", b"")

        def do_POST(self) -> None:
            given = self.rfile.read(int(self.headers["content-length"]))
            try:
                body = json.loads(given)
            except ValueError:
                body = None
            asked = Asked(body, {name.lower(): value for name, value in self.headers.items()}, self.path, len(requests))
            requests.append(asked)
            if found := answer(asked):
                self.reply(*found)

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
            pass  # a client that went away

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def graded(answer: Callable[[Asked], Reply | None], **options: Any) -> Report:
    with serving(answer) as url:
        return check_endpoint(url, **{"concurrency": 4, "timeout": 30, **options})


def test_a_good_endpoint_of_mlflow_s_contract_passes_with_warnings():
    report = graded(good, echo=True, deterministic=True, concurrency=64)
    assert report.broken_rules() == set(), report.violations
    assert report.passed()
    assert not report.passed(strict=True)
    assert report.contract == "MLflow"
    assert report.broken_rules(Severity.note) == {"string-input-refused", "unknown-input-ignored"}
    assert report.probes[-1].facts == {"streams": 64, "lost": 0, "mixed": 0, "refused": 0}


def test_it_is_asked_as_told_and_not_more_often_than_said():
    seen: list[Asked] = []
    with serving(good, seen) as url:
        report = check_endpoint(
            f"{url}/v1", key="token-1", extra={"model": "m", "custom_inputs": {"a": 1}}, concurrency=5
        )
    assert sum(probe.requests for probe in report.probes) == len(seen) == 14 + 5
    assert {asked.path for asked in seen} == {"/v1/responses"}
    assert {asked.headers["authorization"] for asked in seen} == {"Bearer token-1"}
    whole = [asked.body for asked in seen if asked.good]
    assert all(body["model"] == "m" and body["custom_inputs"]["a"] == 1 for body in whole)
    markers = [re.findall(r"marker-\w+", asked.question)[0] for asked in seen[-5:]]
    assert len(set(markers)) == 5


def no_stream(asked: Asked) -> Reply:
    return as_json(200, {"output": [message("Hello.")]}) if asked.good else refusal(400, "No.")


def failing(asked: Asked) -> Reply:
    return as_json(500, {"detail": 'Traceback (most recent call last):\n  File "x", line 1'})


def cut(asked: Asked) -> Reply:
    return as_stream(said(asked), ending=b"cut") if asked.streamed else good(asked)


def unfinished(asked: Asked) -> Reply:
    return as_stream(said(asked), ending=b"") if asked.streamed else good(asked)


def no_json(asked: Asked) -> Reply:
    return as_stream(said(asked), ending=b"data: oops\n\ndata: [DONE]\n\n") if asked.streamed else good(asked)


def takes_anything(asked: Asked) -> Reply:
    return good(asked) if asked.good else as_json(200, {"output": []})


def mute(asked: Asked) -> Reply:
    return good(asked) if asked.good else (400, "text/html", b"<h1>Bad</h1>")


def brittle(asked: Asked) -> Reply:
    return good(asked) if asked.good else refusal(500, "No.")


def forgetful(asked: Asked) -> Reply:
    return good(asked) if not asked.good or asked.streamed else as_json(200, {"output": [message("Something else.")]})


def not_any_more(asked: Asked) -> Reply:
    return good(asked) if asked.number < 12 else refusal(500, "Out of workers.")


def busy(asked: Asked) -> Reply:
    return good(asked) if asked.number < 14 else refusal(429, "Later.")


def page_instead(asked: Asked) -> Reply:
    return good(asked) if asked.streamed or not asked.good else (200, "text/html", b"<h1>Hello</h1>")


def in_its_own_words(asked: Asked) -> Reply:
    return good(asked) if asked.good else as_json(400, {"detail": "Send a list of items."})


def constant(asked: Asked) -> Reply:
    return as_stream("Hello.", id="msg_1") if asked.streamed else good(asked)


FAULTS: dict[str, tuple[Callable[[Asked], Reply], set[str]]] = {
    "it doesn't stream": (no_stream, {"not-a-stream"}),
    "it fails, and tells how": (failing, {"http-status", "error-leaks"}),
    "the connection is cut": (cut, {"stream-cut"}),
    "the stream doesn't end": (unfinished, {"stream-cut"}),
    "an event is no JSON": (no_json, {"stream-json"}),
    "it takes anything": (takes_anything, {"bad-request-accepted"}),
    "the response is a page": (page_instead, {"http-body"}),
    "it doesn't say what is wrong": (mute, {"http-error-mute"}),
    "it fails at bad requests": (brittle, {"http-status"}),
    "stream and response differ": (forgetful, {"stream-differs"}),
    "it suffers from clients that leave": (not_any_more, {"healthy-after-disconnect", "http-status"}),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found(case: str):
    answer, expected = FAULTS[case]
    assert graded(answer, concurrency=2, deterministic=True).broken_rules() == expected


@pytest.mark.parametrize(
    ("answer", "rule"),
    [(busy, "refused-under-load"), (constant, "ids-constant"), (in_its_own_words, "http-error-shape")],
)
def test_a_weakness_is_a_warning(answer: Callable[[Asked], Reply], rule: str):
    report = graded(answer)
    assert report.broken_rules() == set()
    assert rule in report.broken_rules(Severity.warning)


def test_what_one_user_said_must_not_reach_another():
    heard: list[str] = []
    together = threading.Barrier(4, timeout=30)

    def gossip(asked: Asked) -> Reply:
        if asked.number < 14:
            return good(asked)
        heard.append(asked.question)
        together.wait()
        return as_stream(f"I have heard: {' '.join(heard)}")

    report = graded(gossip, echo=True)
    assert report.broken_rules() == {"marker-mixed"}
    assert report.probes[-1].facts == {"streams": 4, "lost": 0, "mixed": 4, "refused": 0}


def test_an_endpoint_that_is_silent_is_asked_once():
    over = threading.Event()
    seen: list[Asked] = []

    def silent(asked: Asked) -> None:
        over.wait(60)

    with serving(silent, seen) as url:
        report = check_endpoint(url, timeout=0.2)
        over.set()
    assert {"answer-late", "stream-cut"} == report.broken_rules()
    assert len(seen) == 1


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(EndpointError, match=f"Can't reach http://127.0.0.1:{port}/responses") as caught:
        check_endpoint(f"http://127.0.0.1:{port}", timeout=5)
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize(("status", "advice"), [(401, "--key-env"), (403, "token"), (404, "address")])
def test_an_endpoint_that_lets_nobody_in_is_not_graded(status: int, advice: str):
    with pytest.raises(EndpointError, match=f"answered with {status}.*{advice}"):
        graded(lambda asked: refusal(status, "No."))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"concurrency": 65}, "at most 64"), ({"question": "Hello?"}, "no {marker}")],
)
def test_what_cannot_be_asked_is_told(options: dict[str, Any], message: str):
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
def test_where_requests_go(url: str, expected: str):
    assert address(url) == expected


def test_what_is_no_url_is_told():
    with pytest.raises(EndpointError, match="'desk' is no URL of an endpoint"):
        address("desk")


def run(*words: str, **environment: str) -> Any:
    return CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1", **environment}).invoke(app, ["check", *words])


def test_the_command_shows_what_was_found_and_passes():
    with serving(good) as url:
        result = run(url, "--concurrency", "3", "--echo")
    assert result.exit_code == 0, result.output
    assert f"{url}/responses: MLflow's weaker contract" in result.output
    assert re.search(r"3 at once +│ +3 +│ +0 +│", result.output)
    assert "warning created-missing: `response.created` is the first event." in result.output
    assert re.search(r"passed: 0 errors, \d+ warnings", result.output)


def test_the_command_fails_on_errors():
    with serving(cut) as url:
        result = run(url, "--concurrency", "0")
    assert result.exit_code == 1
    assert "error stream-cut: A stream ends by itself" in result.output
    assert "  stream again: the connection broke" in result.output
    assert "failed: 1 error, " in result.output


def test_warnings_fail_it_when_it_is_strict():
    with serving(good) as url:
        assert run(url, "--concurrency", "0", "--strict").exit_code == 1


def test_the_report_is_json_too(tmp_path: Path):
    path = tmp_path / "report.json"
    with serving(cut) as url:
        told = run(url, "--concurrency", "2", "--json", "-")
        run(url, "--concurrency", "2", "--json", str(path))
    for report in (json.loads(told.stdout), json.loads(path.read_text())):
        assert report["passed"] is False
        assert report["url"] == f"{url}/responses"
        assert report["probes"][-1]["facts"] == {"streams": 2, "lost": 2, "mixed": 0, "refused": 0}
        assert {"rule", "severity", "message", "event"} == set(report["probes"][0]["violations"][0])


def test_the_token_comes_from_the_environment_and_the_rest_from_a_file(tmp_path: Path):
    path = tmp_path / "request.json"
    path.write_text('{"model": "m"}')
    seen: list[Asked] = []
    with serving(good, seen) as url:
        words = (url, "--concurrency", "0", "--key-env", "MY_TOKEN", "--request", str(path))
        result = run(*words, "--question", "Say {marker}!", MY_TOKEN="token-2")
    assert result.exit_code == 0, result.output
    assert seen[0].headers["authorization"] == "Bearer token-2"
    assert seen[0].body["model"] == "m"
    assert re.fullmatch(r"Say marker-\w+!", seen[0].question)
    assert "token-2" not in result.output


def test_who_cannot_be_reached_is_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = run(f"http://127.0.0.1:{port}")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: Can't reach http://127.0.0.1:{port}/responses")


def test_help_has_examples():
    text = click.unstyle(run("--help").output)
    assert "oneturn check" in text.partition("Examples:")[2]


USAGE_ERRORS = {
    "too many at once": (("http://x", "--concurrency", "65"), "Invalid value for '--concurrency'"),
    "no marker": (("http://x", "--question", "Hello?"), "has no {marker} in it"),
    "no token": (("http://x", "--key-env", "NO_SUCH_TOKEN"), "NO_SUCH_TOKEN isn't set"),
    "no folder": (("http://x", "--json", "nowhere/report.json"), "there is no folder for nowhere/report.json"),
    "no file": (("http://x", "--request", "nothing.json"), "can't be read as JSON"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_a_usage_error_is_told(case: str):
    words, message = USAGE_ERRORS[case]
    result = run(*words)
    assert result.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", click.unstyle(result.stderr)).split())
