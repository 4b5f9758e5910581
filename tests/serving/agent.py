"""An agent in a separate server process: ``python -m tests.serving.agent TOGETHER``.

Its LM repeats every marker in the prompt. The first replies wait for TOGETHER concurrent questions. A reply to a
question with ``slow`` stops halfway until a line on standard input; with ``never``, it stops for good.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage, response_to_events

import oneturn
from oneturn.testing import call, finish

MARKER = re.compile(r"marker-\w+")


class _Engine:
    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, together: int):
        self._together = threading.Barrier(together)
        self.released = threading.Event()

    def complete(self, request: Request) -> Response:
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(TextPart(json.dumps(self._reply(request)))),
            finish_reason="stop",
            usage=Usage(input_tokens=9, output_tokens=9, total_tokens=18),
        )

    def stream(self, request: Request) -> Iterator[Any]:
        sent = 0
        for event in response_to_events(self.complete(request)):
            if event.type != "delta" or event.delta.type != "text":
                yield event
                continue
            text = event.delta.text
            for start in range(0, len(text), 4):
                delta = dataclasses.replace(event.delta, text=text[start : start + 4])
                yield dataclasses.replace(event, delta=delta)
                sent += 4
                if sent > text.find("repeat") > 0:
                    self._wait(_prompt(request))

    def _reply(self, request: Request) -> dict[str, Any]:
        prompt = _prompt(request)
        markers = list(dict.fromkeys(MARKER.findall(prompt)))
        if "meaning of" in prompt:
            return finish(answer=f"I repeat: {' '.join(markers)}.")
        self._together.wait(60)
        return call("look_up", "I look it up", word=markers[0])

    def _wait(self, prompt: str) -> None:
        if "never" in prompt:
            threading.Event().wait()
        if "slow" in prompt:
            self.released.wait(60)


def _prompt(request: Request) -> str:
    parts = [part for message in request.messages for part in message.parts]
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def look_up(word: str) -> str:
    """Look a word up."""
    return f"meaning of {word}"


class RepeatMarkers(dspy.Signature):
    """Repeat all markers."""

    question: str = dspy.InputField()
    note: str = dspy.InputField(default="")
    history: dspy.History = dspy.InputField(default=dspy.History(messages=[]))
    answer: str = dspy.OutputField()


def main() -> None:
    """Serve until stopped."""
    engine = _Engine(int(sys.argv[1]))
    threading.Thread(target=lambda: sys.stdin.readline() and engine.released.set(), daemon=True).start()
    program = oneturn.ReAct(RepeatMarkers, tools=[look_up])
    program.set_lm(dspy.LM("repeat/lm", engine=engine, cache=False, num_retries=0))
    oneturn.serve(oneturn.ResponsesAdapter(program), port=0)


if __name__ == "__main__":
    main()
