"""Whatever chunks an agent of chat completions gives, its stream is right."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from mlflow.types.responses import ResponsesAgentRequest

from oneturn import ResponsesAdapter
from oneturn.programs import ChatCompletionsProgram
from tests.proof.chat_chunks import chats, said
from tests.proof.failures import SECRET
from tests.proof.judging import judged, without_a_stream_it_says_the_same
from tests.proof.profile import proof

REQUEST = ResponsesAgentRequest(input=[{"role": "user", "content": "?"}])


@proof
@given(chats)
def test_whatever_chunks_come_the_stream_is_right(chat: tuple[Any, ...]):
    agent = ResponsesAdapter(ChatCompletionsProgram(lambda messages: said(chat)))
    stream = judged(agent.predict_stream(REQUEST))
    assert SECRET not in str(stream)
    without_a_stream_it_says_the_same(agent, REQUEST, stream)
