"""The contract of Open Responses: an agent by the book passes, a quick adapter doesn't, and what CI systems read."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest
import uvicorn
from pydantic import BaseModel
from typer.testing import CliRunner

from oneturn.cli import app
from oneturn.conformance import EndpointReport, Severity, check_endpoint, check_response, check_stream
from oneturn.conformance.endpoint import Endpoint, address
from oneturn.conformance.open_responses import EVENTS, ITEMS, RESOURCE
from tests.conformance.open_responses_agents import ByTheBook, Naive

Json = dict[str, Any]
NAIVE = {
    "resource-fields",
    "resource-types",
    "item-fields",
    "own-tool-call",
    "event-line",
    "done-missing",
    "suite-tool-call",
}


@contextmanager
def serving(agent: ByTheBook) -> Iterator[str]:
    config = uvicorn.Config(agent.app(), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def start(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = start  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def by_the_book() -> Iterator[str]:
    with serving(ByTheBook()) as url:
        yield url


@pytest.fixture(scope="module")
def naive() -> Iterator[str]:
    with serving(Naive()) as url:
        yield url


@pytest.fixture(scope="module")
def report(by_the_book: str) -> EndpointReport:
    return check_endpoint(by_the_book, contract="openresponses", concurrency=3, echo=True, timeout=60)


@pytest.fixture(scope="module")
def naive_report(naive: str) -> EndpointReport:
    return check_endpoint(f"{naive}/v1/responses", concurrency=3, timeout=60)


def test_an_agent_by_the_book_passes(report: EndpointReport):
    assert report.url.endswith("/v1/responses")
    assert report.contract == "openresponses"
    assert report.broken_rules(Severity.error, Severity.warning) == set(), report.findings
    suite = {probe.name: probe.requests for probe in report.probes[5:-1]}
    assert suite == {
        "basic-response": 1,
        "streaming-response": 1,
        "system-prompt": 1,
        "multi-turn": 1,
        "image-input": 1,
        "file-input": 1,
        "tool-calling": 1,
        "tool-calling-streaming": 1,
        "function-call-roundtrip": 2,
        "previous-response-id": 2,
    }


def test_a_quick_adapter_breaks_the_rules_that_its_clients_stumble_over(naive_report: EndpointReport):
    assert naive_report.contract == "openresponses"
    assert naive_report.broken_rules() == NAIVE
    messages = {finding.check: finding.message for finding in reversed(naive_report.findings)}
    assert messages["resource-types"].startswith("The response: created_at is 1")
    assert "The response lacks completed_at, incomplete_details, previous_response_id" in messages["resource-fields"]
    assert messages["own-tool-call"] == "A function_call of 'search_handbook', which isn't a tool of the request."


def test_the_same_adapter_keeps_the_contract_of_mlflow(naive: str):
    with Endpoint(f"{naive}/v1/responses", contract="mlflow") as endpoint:
        assert endpoint.checked_contract == "mlflow"
        events = endpoint.ask(endpoint.body("?", stream=True)).stream.events
        response = endpoint.ask(endpoint.body("?")).json
    found = [*check_stream(events), *check_response(response)]
    assert [finding for finding in found if finding.severity is Severity.error] == []


def events(**body: Any) -> list[Json]:
    return list(ByTheBook(fails=body.pop("fails", False))._events({"input": "?", "stream": True, **body}))


def test_an_error_nested_as_the_specification_wants_is_valid():
    stream = events(fails=True)
    assert stream[2]["error"]["type"] == "too_many_requests"
    assert "code" not in stream[2], "no fields beside the object"
    assert [f for f in check_stream(stream, contract="openresponses") if f.severity is not Severity.note] == []
    stream[2]["error"]["code"] = "overloaded"
    assert {f.check for f in check_stream(stream) if f.severity is Severity.error} == set()


@pytest.mark.parametrize("missing", ["type", "message", "param", "code"])
def test_an_error_event_needs_all_fields_of_the_specification(missing: str):
    stream = events(fails=True)
    del stream[2]["error"][missing]
    assert "event-fields" in {finding.check for finding in check_stream(stream, contract="openresponses")}


def test_calls_of_the_client_s_tools_are_no_fault():
    stream = events(tools=[{"type": "function", "name": "get_weather"}])
    response = stream[-1]["response"]
    checks: tuple[Any, ...] = ((check_stream, stream), (check_response, response))
    for check, answer in checks:
        own = {f.check for f in check(answer, contract="openresponses", client_tools=["get_weather"])}
        other = {f.check for f in check(answer, contract="openresponses")}
        assert "own-tool-call" not in own
        assert "own-tool-call" in other


@pytest.mark.parametrize(
    ("url", "contract", "expected"),
    [
        ("http://h", None, ("http://h/responses", "mlflow")),
        ("http://h", "openresponses", ("http://h/v1/responses", "openresponses")),
        ("http://h/v1", None, ("http://h/v1/responses", "openresponses")),
        ("http://h/invocations", None, ("http://h/invocations", "mlflow")),
        ("http://h/responses", "openresponses", ("http://h/responses", "openresponses")),
        ("http://h/v1/responses", "mlflow", ("http://h/v1/responses", "mlflow")),
    ],
)
def test_the_path_tells_the_contract(url: str, contract: Any, expected: tuple[str, str]):
    endpoint = Endpoint(url, contract=contract)
    assert (endpoint.address, endpoint.checked_contract) == expected
    assert address(url, contract) == expected[0]


class Refusing(ByTheBook):
    """Supports text only, and says so."""

    async def respond(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        body = await request.body()
        for field in ("tools", "previous_response_id", "input_image", "input_file"):
            if f'"{field}"'.encode() in body:
                error = {
                    "type": "invalid_request",
                    "code": None,
                    "message": f"{field} isn't supported.",
                    "param": field,
                }
                return JSONResponse({"error": error}, 400)
        return await super().respond(request)


def run(url: str, *arguments: str, width: int = 200) -> Any:
    environment = {"COLUMNS": str(width), "NO_COLOR": "1"}
    return CliRunner(env=environment).invoke(app, ["check", url, "--concurrency", "0", *arguments])


def test_the_command_ends_with_the_contract_and_writes_files_for_ci(by_the_book: str, naive: str, tmp_path: Path):
    junitparser = pytest.importorskip("junitparser")
    sarif_pydantic = pytest.importorskip("sarif_pydantic")
    paths = tmp_path / "check.xml", tmp_path / "check.sarif"
    files = "--junit", str(paths[0]), "--sarif", str(paths[1])

    passed = run(by_the_book, "--contract", "openresponses", *files)
    assert passed.exit_code == 0, passed.output
    assert passed.output.splitlines()[-1] == "passed Open Responses: 0 errors, 0 warnings"
    suites = junitparser.JUnitXml.fromfile(str(paths[0]))
    assert (suites.tests, suites.failures, suites.skipped) == (15, 0, 0)

    failed = run(f"{naive}/v1/responses", *files)
    assert failed.exit_code == 1, failed.output
    assert failed.output.splitlines()[-1] == "did not pass Open Responses: 7 errors, 1 warning"
    suites = junitparser.JUnitXml.fromfile(str(paths[0]))
    stream = next(suite for suite in suites if suite.name == "stream")
    assert {case.name for case in stream} == NAIVE - {"suite-tool-call"}
    assert all(case.result[0].type == case.name for case in stream)
    assert suites.failures > 7

    sarif = json.loads(paths[1].read_text(encoding="utf-8"))
    log = sarif_pydantic.Sarif.model_validate(sarif)
    results = log.runs[0].results
    assert {result.rule_id for result in results if str(result.level.value) == "error"} == NAIVE
    for result in sarif["runs"][0]["results"]:  # what the schema and code hosts require
        assert result["message"]["text"]
        assert sarif["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == f"{naive}/v1/responses"


def test_what_an_agent_refuses_by_name_is_skipped_and_fails_only_with_strict(tmp_path: Path):
    junitparser = pytest.importorskip("junitparser")
    path = tmp_path / "check.xml"
    with serving(Refusing()) as url:
        result = run(f"{url}/v1/responses", "--junit", str(path))
        strict = run(f"{url}/v1/responses", "--strict")
    assert result.exit_code == 0, result.output
    verdict = "0 errors, 1 warning, 6 tests of the acceptance suite refused"
    assert result.output.splitlines()[-1] == f"passed Open Responses: {verdict}"
    assert "tools isn't supported." in result.output
    assert junitparser.JUnitXml.fromfile(str(path)).skipped == 6
    assert strict.exit_code == 1
    assert strict.output.splitlines()[-1] == f"did not pass Open Responses: {verdict}"


@pytest.mark.parametrize("width", [60, 100])
def test_the_report_fits_a_narrow_terminal(naive: str, width: int):
    output = run(f"{naive}/v1/responses", width=width).output
    table = output.partition("error ")[0].splitlines()[1:]
    assert max(map(len, table)) <= width
    assert re.search(r"function-call-roundtrip +1 +\d+ +0", output)


def required(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if field.is_required()} - {"type"}


def test_the_fields_are_those_of_the_specification_s_schemas():
    types = pytest.importorskip("openresponses_types", reason="openresponses-types needs Python 3.11")
    assert required(RESOURCE) == required(types.ResponseResource)
    nullable = {name for name, field in RESOURCE.model_fields.items() if type(None) in get_args(field.annotation)}
    standard = types.ResponseResource.model_fields.items()
    assert nullable == {name for name, field in standard if type(None) in get_args(field.annotation)}
    events = {}
    for name, model in vars(types).items():
        kind = model.model_fields["type"].annotation if name.endswith("StreamingEvent") else None
        if isinstance(kind, type) and issubclass(kind, Enum):
            events[str(next(iter(kind)).value)] = required(model)
    assert {name: required(model) for name, model in EVENTS.items()} == events
    items = {"message": "Message", "reasoning": "ReasoningBody", "compaction": "CompactionBody"}
    items |= {"function_call": "FunctionCall", "function_call_output": "FunctionCallOutput"}
    assert {name: required(model) for name, model in ITEMS.items()} == {
        name: required(getattr(types, other)) for name, other in items.items()
    }
