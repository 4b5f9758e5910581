"""The support desk with its real handbook and orders, and a scripted LM."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest

from data.support import CORPUS
from modules.support_desk import support_desk
from oneturn import ResponsesAdapter
from oneturn.retrieval import Bm25Retriever, read_markdown
from oneturn.testing import ScriptedLM, call, finish

HANDBOOK = Bm25Retriever(read_markdown(CORPUS))


def run(question: str, *replies: dict[str, Any]) -> tuple[dspy.Prediction, ScriptedLM]:
    with ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        return support_desk(HANDBOOK)(question=question), lm


def test_price_is_looked_up_and_calculated():
    prediction, lm = run(
        "What do 3 bags of house beans cost?",
        call("search_handbook", query="house beans price"),
        call("calculate", expression="3 * 14.50"),
        finish(answer="€43.50", citations=["bean-prices"], answerable=True),
    )
    found, reckoned = (turn.observation for turn in prediction.trajectory)
    assert "[bean-prices] " in found
    assert "House beans cost €14.50 a bag" in found
    assert reckoned == "43.50"
    assert (prediction.answer, prediction.citations, prediction.answerable) == ("€43.50", ["bean-prices"], True)
    assert len(lm.requests) == 3


@pytest.mark.parametrize("query", ["What notice for M-1045?", "m-1045: what notice?"])
def test_a_query_that_names_an_order_is_searched_with_what_rules_depend_on(query: str):
    prediction, _ = run(
        "What notice for M-1045?",
        call("search_handbook", query=query),
        finish(answer="3 months", citations=[], answerable=True),
    )
    observation = prediction.trajectory[0].observation
    assert observation.startswith("[M-1045] customer: ")
    assert "[floor-plan] " in observation  # the plan of the order


def test_citations_are_limited_to_what_holds_the_answer():
    prediction, _ = run(
        "What does a bag of house beans cost?",
        call("search_handbook", query="house beans price"),
        finish(answer="€14.50", citations=["bulk-discount", "bean-prices"], answerable=True),
    )
    assert prediction.citations == ["bean-prices"]


def test_only_an_order_in_the_question_is_looked_up():
    prediction, lm = run(
        "Where is m-1042?",
        call("lookup_order", order_id="m-1042"),
        finish(answer="delivered", citations=["M-1042"], answerable=True),
    )
    assert prediction.trajectory[0].observation.startswith("[M-1042] customer: Brandt & Lorenz; ")
    assert "lookup_order" in lm.requests[0].offered
    _, lm = run("Where is my order?", finish(answer="Which one?", citations=[], answerable=False))
    assert lm.requests[0].offered == ["search_handbook", "finish"]


@pytest.mark.parametrize(
    ("tool_call", "observation"),
    [
        (call("lookup_order", order_id="M-9999"), "Error: there is no order 'M-9999'"),
        (call("search_handbook", query="quantum"), "Nothing was found."),
        (call("search_handbook", query=""), "Nothing was found."),
    ],
)
def test_tool_error_is_one_line(tool_call: dict[str, Any], observation: str):
    prediction, _ = run("What of M-9999?", tool_call, finish(answer="I can't tell.", citations=[], answerable=False))
    assert prediction.trajectory[0].observation == observation


def test_only_what_was_read_is_calculated_with():
    refused = call("calculate", expression="3 * 1450.00")
    reckoned = call("calculate", expression="3 * 14.50")
    divided = call("calculate", expression="14.50 / 0")
    search = call("search_handbook", query="house beans price")
    end = finish(answer="€43.50", citations=["bean-prices"], answerable=True)
    prediction, lm = run("What do 3 bags of house beans cost?", search, refused, reckoned, divided, end)
    assert "calculate" not in lm.requests[0].offered, "nothing has been read yet"
    observations = [turn.observation for turn in prediction.trajectory[1:]]
    assert observations[0].startswith("Error: ")
    assert "1450" in observations[0]
    assert observations[1:] == ["43.50", "Error: '14.50 / 0' has no value (a division by zero?)"]


def test_step_schema_works_with_constrained_decoding():
    lookup = call("lookup_order", order_id="M-1042")
    _, lm = run("M-1042?", lookup, finish(answer="x", citations=[], answerable=False))
    schema = json.dumps([request.schema for request in lm.requests])
    assert "$ref" not in schema
    assert '"seen' not in schema
    expression = next(
        option["properties"]["args"]["properties"]["expression"]
        for option in lm.requests[1].schema["properties"]["tool_call"]["anyOf"]
        if option["properties"]["name"]["enum"] == ["calculate"]
    )
    assert "pattern" in expression


def test_client_gets_sources_with_titles_and_urls():
    program = support_desk(HANDBOOK)
    program.set_lm(
        ScriptedLM(
            call("search_handbook", query="house beans price"),
            finish(answer="€14.50", citations=["bean-prices"], answerable=True),
        )
    )
    response = ResponsesAdapter(program).predict({"input": [{"role": "user", "content": "House beans?"}]})
    (source,) = response.output[-1].content[0]["annotations"]
    assert (source["title"], source["url"]) == ("Bean prices", "corpus/bean-prices.md")
    assert response.custom_outputs == {"citations": ["bean-prices"], "answerable": True}
