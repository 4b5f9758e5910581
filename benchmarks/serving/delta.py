"""Measure the CPU time of one streamed text delta, from the LM's engine to the reader of the events, in process."""

from __future__ import annotations

import json
import time

from mlflow.types.responses import ResponsesAgentRequest

import oneturn
from oneturn.testing import ScriptedLM

_WORDS = 2000
_REPEATS = 5
_REQUEST = ResponsesAgentRequest.model_validate({"input": [{"role": "user", "content": "?"}]})


def cost_of_a_delta() -> float:
    """Return the CPU seconds per delta: the fastest of some long answers minus the fastest of some short ones."""
    short = min(_answer(1) for _ in range(_REPEATS))
    long = min(_answer(_WORDS) for _ in range(_REPEATS))
    return (long[0] - short[0]) / (long[1] - short[1])


def _answer(words: int) -> tuple[float, int]:
    """Return the CPU seconds and the number of deltas of an answer of ``words`` words."""
    step = {"thought": "So.", "tool_call": {"name": "finish", "args": {"answer": "word " * words}}}
    with ScriptedLM(json.dumps(step)) as lm:
        program = oneturn.ReAct("question -> answer", tools=[])
        program.set_lm(lm)
        start = time.process_time()
        events = list(oneturn.ResponsesAdapter(program).predict_stream(_REQUEST))
        seconds = time.process_time() - start
    return seconds, sum(event.type == "response.output_text.delta" for event in events)
