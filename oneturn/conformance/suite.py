"""The acceptance suite of Open Responses (openresponses.org, 2026-04-24) as probes.

The requests are those of the official suite, except its optional tests of file search and web search. What an agent may
leave out (pictures, files, client-side tools, ``previous_response_id``), it may refuse with a 4xx; the report says so.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oneturn.conformance.endpoint import Answer, Endpoint
from oneturn.conformance.events import kind, mapping, objects
from oneturn.conformance.probes import Settings, error_violations, stream_violations
from oneturn.conformance.report import Probe
from oneturn.conformance.response import check_response
from oneturn.conformance.rules import Findings, format_value
from oneturn.core.findings import Finding

_TOOL = "get_weather"
_TOOLS = {
    "tools": [
        {
            "type": "function",
            "name": _TOOL,
            "description": "Get the current weather for a location",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
                },
                "required": ["location"],
            },
        }
    ]
}


def _message(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _with_part(text: str, **part: Any) -> list[dict[str, Any]]:
    return [_message("user", [{"type": "input_text", "text": text}, part])]


def _red_square() -> str:
    """Return a PNG of 32 by 32 pixels as a data URL."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\x00" + b"\xff\x00\x00" * 32) * 32)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _title_page() -> str:
    """Return a PDF of one page, which reads "Title: A test file", as a data URL."""
    text = b"BT /F1 12 Tf 72 72 Td (Title: A test file) Tj ET"
    objects_ = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 144]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(text), text),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects_, 1):
        places.append(len(body))
        body += b"%d 0 obj%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(body),
    )
    return "data:application/pdf;base64," + base64.b64encode(body + end).decode()


_REQUIRED: dict[str, dict[str, Any]] = {
    "basic-response": {"input": [_message("user", "Say hello in exactly 3 words.")]},
    "streaming-response": {"input": [_message("user", "Count from 1 to 5.")], "stream": True},
    "system-prompt": {
        "input": [
            _message("system", "You are a pirate. Always respond in pirate speak."),
            _message("user", "Say hello."),
        ]
    },
    "multi-turn": {
        "input": [
            _message("user", "My name is Alice."),
            _message("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
            _message("user", "What is my name?"),
        ]
    },
}
_OPTIONAL: dict[str, dict[str, Any]] = {
    "image-input": {
        "input": _with_part(
            "What do you see in this image? Answer in one sentence.", type="input_image", image_url=_red_square()
        )
    },
    "file-input": {
        "input": _with_part(
            "Read the attached file and answer with its title only.",
            type="input_file",
            filename="test.pdf",
            file_data=_title_page(),
        )
    },
}
_WEATHER = {"input": [_message("user", "What's the weather like in San Francisco?")], **_TOOLS}


def run_suite(endpoint: Endpoint, settings: Settings, on_probe: Callable[[str], object]) -> Iterator[Probe]:
    """Run the tests of the suite, one probe each."""
    for name, request in {**_REQUIRED, **_OPTIONAL}.items():
        on_probe(f"acceptance suite: {name}")
        test = _Test(name, endpoint, settings, optional=name in _OPTIONAL)
        test.check_completed(test.ask(request))
        yield test.probe()
    for name, run in (
        ("tool-calling", _check_tool_call),
        ("tool-calling-streaming", _check_streamed_tool_call),
        ("function-call-roundtrip", _check_round_trip),
        ("previous-response-id", _check_previous_response),
    ):
        on_probe(f"acceptance suite: {name}")
        test = _Test(name, endpoint, settings, optional=True)
        run(test)
        yield test.probe()


class _Test:
    """One test of the suite: its requests, and what they broke."""

    def __init__(self, name: str, endpoint: Endpoint, settings: Settings, optional: bool):
        self._name = name
        self._endpoint = endpoint
        self._settings = settings
        self._optional = optional
        self._requests = 0
        self._tools: set[str] = set()
        self._violations: list[Finding] = []
        self._findings = Findings(settings.contract)

    def ask(self, request: Mapping[str, Any]) -> Answer | None:
        """Send a request and check its answer; return ``None`` if that ends the test."""
        self._requests += 1
        self._tools.update(str(tool.get("name")) for tool in objects(request.get("tools")))
        answer = self._endpoint.ask({**self._endpoint.extra, **request})
        if self._optional and 400 <= answer.status < 500:
            message = mapping(mapping(answer.json).get("error")).get("message")
            self.add("suite-refused", f"answered with {answer.status}: {format_value(message, 200)}")
            self._violations += error_violations(answer, self._settings.contract)
            return None
        if request.get("stream"):
            self._violations += stream_violations(answer, self._settings, self._tools)
            return answer if answer.is_stream else None
        if answer.status != 200:
            self.add("http-status", f"a valid request is answered with {answer.status or answer.broken}")
            self._violations += error_violations(answer, self._settings.contract) if answer.status else []
            return None
        if not isinstance(answer.json, dict):
            self.add("http-body", f"the body is {format_value(answer.body)}")
            return None
        self._violations += check_response(answer.json, contract=self._settings.contract, client_tools=self._tools)
        return answer

    def add(self, rule: str, message: str) -> None:
        """Add a violation."""
        self._findings.add(rule, f"{message[0].upper()}{message[1:]}.")

    def check_completed(self, answer: Answer | None) -> None:
        """Check that the response is completed and has output."""
        if answer is None:
            return
        response = _final_response(answer)
        if response.get("status") != "completed":
            self.add("suite-output", f"the status is {format_value(response.get('status'))}")
        if not response.get("output"):
            self.add("suite-output", "the response has no output items")

    def probe(self) -> Probe:
        """Return the probe; violations of its own rules first."""
        return Probe([*self._findings.in_order(), *self._violations], self._name, self._requests)


def _final_response(answer: Answer) -> Mapping[str, Any]:
    if not answer.is_stream:
        return mapping(answer.json)
    return next((mapping(event["response"]) for event in reversed(answer.stream.events) if "response" in event), {})


def _function_calls(answer: Answer) -> list[Mapping[str, Any]]:
    """Return the calls of the client's tool; an agent's own calls are none."""
    output = objects(_final_response(answer).get("output"))
    return [item for item in output if (item.get("type"), item.get("name")) == ("function_call", _TOOL)]


def _check_tool_call(test: _Test) -> None:
    answer = test.ask(_WEATHER)
    if answer is not None and not _function_calls(answer):
        test.add("suite-tool-call", f"the output has no function_call of {_TOOL}")


def _check_streamed_tool_call(test: _Test) -> None:
    answer = test.ask({**_WEATHER, "stream": True})
    if answer is None:
        return
    ids = {call.get("id") for call in _function_calls(answer)}
    events = [
        kind(event)
        for event in answer.stream.events
        if mapping(event.get("item")).get("id") in ids or event.get("item_id") in ids
    ]
    wanted = ("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done")
    if missing := [name for name in wanted if f"response.{name}" not in events]:
        test.add("suite-tool-call", f"the stream has no {', '.join(missing)} of a function_call of {_TOOL}")


def _check_round_trip(test: _Test) -> None:
    question = {"input": "Use the weather tool to get the temperature in San Francisco."}
    first = test.ask({**question, **_TOOLS, "tool_choice": {"type": "function", "name": _TOOL}})
    if first is None:
        return
    calls = _function_calls(first)
    if not calls:
        test.add("suite-tool-call", f"the output has no function_call of {_TOOL}, which tool_choice names")
        return
    response = mapping(first.json)
    outputs = [
        {"type": "function_call_output", "call_id": call.get("call_id"), "output": "64 degrees and clear"}
        for call in calls
    ]
    second = test.ask({"previous_response_id": response.get("id"), "input": outputs})
    if second is None:  # without a store, the client sends the items again
        items = [_message("user", question["input"]), *objects(response.get("output")), *outputs]
        second = test.ask({"input": items, **_TOOLS})
    test.check_completed(second)


def _check_previous_response(test: _Test) -> None:
    first = test.ask({"input": "Remember this code word: papaya. Reply with only OK."})
    if first is not None:
        id = mapping(first.json).get("id")
        request = {"previous_response_id": id, "input": "What code word did I ask you to remember?"}
        test.check_completed(test.ask(request))
