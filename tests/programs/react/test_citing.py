"""Citations that are limited to the sources that hold the answer's numbers and words."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from mlflow.entities import Document

import oneturn
from oneturn.core.steps import Answer, FinishedCall
from oneturn.programs.react.citing import supported_citations
from oneturn.testing import ScriptedLM, call, finish

PRICES = Document("The Mini costs €480.00, the Pro costs €1,450.00.", id="prices")
SETUP = Document("Installation costs €89.00. A wider worktop is needed.", id="setup")
ORDER = Document("customer: Nord; plan: Team; ordered_on: 2026-02-01", id="M-7")
TEAM = Document("The Team plan ends with 30 days of notice.", id="team")


def searched(*documents: Document) -> FinishedCall:
    return FinishedCall("search", {"query": "?"}, "", "\n".join(each.page_content for each in documents), documents)


def computed(expression: str, output: str) -> FinishedCall:
    return FinishedCall("calculate", {"expression": expression}, "", output)


@pytest.mark.parametrize(
    ("answer", "cited", "calls", "question", "expected"),
    [
        pytest.param("€480.00", ["prices", "setup"], [searched(PRICES, SETUP)], "?", ["prices"], id="one too many"),
        pytest.param("€480", ["setup"], [searched(PRICES, SETUP)], "?", ["prices"], id="the wrong one"),
        pytest.param("1450 euros", ["setup"], [searched(PRICES, SETUP)], "?", ["prices"], id="thousands"),
        pytest.param("the worktop", ["prices", "setup"], [searched(PRICES, SETUP)], "?", ["setup"], id="a word"),
        pytest.param(
            "€569.00",
            ["prices"],
            [searched(PRICES, SETUP, TEAM), computed("480.00 + 89.00", "569")],
            "?",
            ["prices", "setup"],
            id="the numbers of a sum",
        ),
        pytest.param(
            "€1138.00",
            ["team"],
            [searched(PRICES, SETUP, TEAM), computed("480.00 + 89.00", "569"), computed("569 * 2", "1138")],
            "?",
            ["prices", "setup"],
            id="a sum of a sum",
        ),
        pytest.param(
            "30 days", ["team"], [searched(ORDER), searched(TEAM, SETUP)], "Notice of m-7?", ["M-7", "team"], id="named"
        ),
        pytest.param("30 days", ["team"], [searched(TEAM), searched(ORDER)], "Notice?", ["team"], id="not named"),
        pytest.param("30 days", [], [searched(TEAM)], "?", [], id="nothing cited"),
        pytest.param(
            "Installation takes a wider worktop, as the Mini costs.",
            ["setup", "prices"],
            [searched(PRICES, SETUP, TEAM)],
            "?",
            ["prices", "setup"],
            id="prose keeps what was cited",
        ),
        pytest.param("the worktop", ["prices"], [searched(PRICES, SETUP)], "?", ["setup"], id="a word of another"),
        pytest.param("No.", ["team"], [searched(TEAM, SETUP)], "?", ["team"], id="no word or number"),
        pytest.param("purple", ["team"], [searched(TEAM, SETUP)], "?", ["team"], id="held by none"),
        pytest.param("42", ["team"], [searched(TEAM), computed("6 * 7", "42")], "?", ["team"], id="a sum of no source"),
        pytest.param("30 days", ["x"], [], "?", ["x"], id="no documents"),
        pytest.param(
            "30 days", ["x", "team"], [searched(TEAM)], "?", ["team", "x"], id="an earlier source, text unknown"
        ),
        pytest.param(
            "30 days",
            ["old"],
            [searched(Document("", id="old"), TEAM)],
            "?",
            ["old", "team"],
            id="a source without text",
        ),
        pytest.param("30 days", ["team"], [searched(ORDER, TEAM)], "M-77 or XM-7?", ["team"], id="another id"),
        pytest.param("30 days", ["team"], [searched(SETUP, TEAM)], "A setup?", ["team"], id="an id that is a word"),
    ],
)
def test_citations_are_those_of_the_sources_that_hold_the_answer(
    answer: str, cited: list[str], calls: list[FinishedCall], question: str, expected: list[str]
):
    assert supported_citations(answer, cited, calls, [question]) == expected


def test_of_two_sources_that_hold_the_answer_the_cited_one_stays():
    both = [Document("It takes 3 days.", id="a"), Document("It takes 3 days, too.", id="b")]
    assert supported_citations("3 days", ["b"], [searched(*both)], []) == ["b"]


def find(query: str) -> list[Document]:
    """Find passages."""
    return [PRICES, SETUP]


@pytest.mark.parametrize(("supported", "expected"), [(False, ["prices", "setup"]), (True, ["prices"])])
def test_a_program_limits_its_citations_if_it_is_asked_to(supported: bool, expected: list[str]):
    signature = "question -> answer, citations: list[oneturn.Citation]"
    program = oneturn.ReAct(
        dspy.Signature(signature, custom_types={"oneturn": oneturn}), tools=[find], supported_citations=supported
    )
    replies: list[Any] = [call("find", query="Mini"), finish(answer="€480.00", citations=["prices", "setup"])]
    with ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        assert program(question="What does the Mini cost?").citations == expected
    with ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        (last,) = (step for step in program.steps(question="What does the Mini cost?") if isinstance(step, Answer))
    assert last.prediction.citations == expected
