"""Whatever is asked, the stream is right: it answers, or says why it can't, or there is none."""

from __future__ import annotations

from typing import Any, Literal

import dspy
import pytest
from hypothesis import event, given

from oneturn import ReAct, ResponsesAdapter
from oneturn.errors import RequestError
from oneturn.responses.parsing import read_request
from oneturn.testing import ScriptedLM, finish
from tests.proof.judging import judged, outcome, without_a_stream_it_says_the_same
from tests.proof.profile import proof
from tests.proof.requests import bodies


class Chat(dspy.Signature):
    """Answer."""

    system_message: str = dspy.InputField(default="")
    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    photo: dspy.Image | None = dspy.InputField(default=None)
    tone: Literal["plain", "kind"] = dspy.InputField(default="plain")
    limit: int | None = dspy.InputField(default=None)
    answer: str = dspy.OutputField()


def agent() -> ResponsesAdapter:
    program = ReAct(Chat, tools=[])
    program.set_lm(ScriptedLM(*[finish("so", answer="It is 12.")] * 2))
    return ResponsesAdapter(program)


@proof
@given(bodies())
def test_whatever_is_asked_the_stream_answers_or_says_why_it_can_not(body: dict[str, Any]):
    try:
        request, _ = read_request(body)
    except RequestError:
        event("refused before it is parsed")
        for refuse in (agent().predict, lambda asked: next(agent().predict_stream(asked))):
            with pytest.raises(RequestError):
                refuse(body)  # type: ignore[arg-type]
        return
    earlier = [str(item.model_dump().get("call_id")) for item in request.input]
    stream = judged(agent().predict_stream(request), earlier)
    event(outcome(stream))
    without_a_stream_it_says_the_same(agent(), request, stream)
    if outcome(stream) == "failed":  # a server says so before the stream begins
        with pytest.raises(RequestError) as refused:
            agent().parse(request)
        assert (stream[-2]["code"], stream[-2]["message"]) == ("invalid_request", str(refused.value))
    else:
        agent().parse(request)
