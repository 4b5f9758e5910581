"""What one piece of streamed text costs between the LM's engine and whoever reads the events, in this process."""

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
    """Seconds of CPU a delta: the best of some long answers, less the best of some short ones."""
    short = min(_answer(1) for _ in range(_REPEATS))
    long = min(_answer(_WORDS) for _ in range(_REPEATS))
    return (long[0] - short[0]) / (long[1] - short[1])


def _answer(words: int) -> tuple[float, int]:
    """Seconds of CPU, and deltas, of an answer of that many words."""
    step = {"thought": "So.", "tool_call": {"name": "finish", "args": {"answer": "word " * words}}}
    with ScriptedLM(json.dumps(step)) as lm:
        program = oneturn.ReAct("question -> answer", tools=[])
        program.set_lm(lm)
        began = time.process_time()
        events = list(oneturn.ResponsesAdapter(program).predict_stream(_REQUEST))
        used = time.process_time() - began
    return used, sum(event.type == "response.output_text.delta" for event in events)
