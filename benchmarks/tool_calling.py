"""``python -m benchmarks.tool_calling [--report docs/lms.md]``: LM calls, tokens and CPU of ReAct modules.

Each module answers the same question, which needs one tool, with an LM that makes no mistake: a chat-completions server
in another process, which calls the tool and then ends the run, in the format that the request asks for.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import dspy
from dspy.utils import BaseCallback

from benchmarks.machine import ran_on
from benchmarks.report import between_marks
from oneturn import ReAct

QUESTION = "What does delivery to Norway cost?"
ANSWER = "24 euros"
_RESULT = f"Delivery to Norway costs {ANSWER}."
_CHARACTERS = 4
"""Characters of a request for one token: the same estimate for all."""

_HEAD = "| module | asked by | LM calls | input tokens | output tokens | CPU a run |"
_RULE = "| --- | --- | --- | --- | --- | --- |"


def search(query: str) -> str:
    """Search the price list."""
    return _RESULT


def _ours(way: str) -> dspy.Module:
    return ReAct("question -> answer", [search], tool_calling=way)


Module = tuple[str, str, Callable[[], dspy.Module], dspy.Adapter | None]

MODULES: tuple[Module, ...] = (
    ("`oneturn.ReAct`", "functions", lambda: _ours("native"), None),
    ("`oneturn.ReAct`", "schema", lambda: _ours("schema"), None),
    ("`oneturn.ReAct`", "text", lambda: _ours("text"), None),
    ("`dspy.ReActV2`", "functions", lambda: dspy.ReActV2("question -> answer", [search]), dspy.JSONAdapter()),
    ("`dspy.ReActV2`", "text", lambda: dspy.ReActV2("question -> answer", [search]), None),
    ("`dspy.ReAct`", "text", lambda: dspy.ReAct("question -> answer", [search]), None),
)
"""The module, how the LM is asked, how it is built, and the adapter that asks so; by default ``dspy.ChatAdapter``."""


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """Return the message of an LM that calls the tool first, and ends the run after that."""
    found = any(_RESULT in json.dumps(message) for message in body["messages"][1:])
    names = [tool["function"]["name"] for tool in body.get("tools", ())]
    args = {"answer": ANSWER} if found else {"query": "delivery Norway"}
    if names:
        name = next(name for name in names if name in ("finish", "submit")) if found else "search"
        function = {"name": name, "arguments": json.dumps(args)}
        calls = [{"id": f"call_{len(body['messages'])}", "type": "function", "function": function}]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    system = body["messages"][0]["content"]
    ending = next((name for name in ("finish", "submit") if f"call `{name}`" in system), "finish")
    call = {"name": ending if found else "search", "args": args}
    if "You work in steps" in system:
        return {"role": "assistant", "content": json.dumps({"thought": "", "tool_call": call})}
    if "next_tool_name" in system:
        fields = {"next_thought": "I look it up.", "next_tool_name": call["name"], "next_tool_args": json.dumps(args)}
        if found:
            fields["next_tool_args"] = "{}"
    elif "tool_calls" in system:
        fields = {"next_thought": "I look it up.", "tool_calls": json.dumps({"tool_calls": [call]})}
    else:
        fields = {"reasoning": "It is in the price list.", "answer": ANSWER}
    text = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())
    return {"role": "assistant", "content": f"{text}\n\n[[ ## completed ## ]]"}


def serve(port: Connection) -> None:
    """Serve :func:`reply` on a free port, and send the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            body = json.loads(sent)
            message = reply(body)
            written = json.dumps(message.get("tool_calls") or message["content"])
            tokens = [len(sent) // _CHARACTERS, len(written) // _CHARACTERS]
            usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            response = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"]}
            payload = json.dumps({**response, "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


def measure(build: Callable[[], dspy.Module], lm: dspy.LM, runs: int) -> dict[str, float]:
    """Return the LM calls, tokens and median CPU seconds of a run.

    Raises:
        SystemExit: a run has another answer.
    """
    program = build()
    program.set_lm(lm)
    program(question=QUESTION)  # warm-up
    calls, seconds = _LMCalls(), []
    with dspy.track_usage() as tracker, dspy.context(callbacks=[calls]):
        for _ in range(runs):
            start = time.process_time()
            answer = program(question=QUESTION).answer
            seconds.append(time.process_time() - start)
            if answer != ANSWER:
                raise SystemExit(f"{type(program).__name__} answered {answer!r}")
    (tokens,) = tracker.get_total_tokens().values()
    return {
        "calls": calls.count / runs,
        "input": tokens["prompt_tokens"] / runs,
        "output": tokens["completion_tokens"] / runs,
        "cpu": median(seconds),
    }


class _LMCalls(BaseCallback):
    """Counts the LM calls."""

    count = 0

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.count += 1


def main() -> None:
    """Measure, print the table and, with ``--report``, write it."""
    parser = argparse.ArgumentParser(description="LM calls, tokens and CPU of ReAct modules.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--report", help="a page with the marks of this table")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    lm = dspy.LM("openai/gpt-4o-mini", api_base=f"http://127.0.0.1:{ours.recv()}/v1", api_key="none", cache=False)
    rows = []
    for name, way, build, adapter in MODULES:
        with dspy.context(adapter=adapter, disable_history=True):
            used = measure(build, lm, options.runs)
        figures = f"{used['calls']:.2f} | {used['input']:.0f} | {used['output']:.0f} | {1000 * used['cpu']:.1f} ms"
        rows.append(f"| {name} | {way} | {figures} |")
    server.terminate()
    text = (
        "\n".join([ran_on("dspy"), f"- {options.runs} runs each, one at a time, untraced", "", _HEAD, _RULE, *rows])
        + "\n"
    )
    print(text)
    if options.report:
        page = Path(options.report)
        page.write_text(between_marks(page, text, "tool calling"), encoding="utf-8")


if __name__ == "__main__":
    main()
