"""What an LM may name: only documents that the run was given, only ids that it has seen."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any

import dspy
import pydantic
import pytest
from mlflow.entities import Document

from oneturn import Citation, ReAct, Seen, SeenNumbers
from oneturn.errors import ProgramError, RunError
from oneturn.testing import ScriptedLM, ScriptedRequest, call, finish


class Ask(dspy.Signature):
    """Answer from the shelf."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[Citation] = dspy.OutputField()


SHELF = {
    "red": [Document("The red book has 99 pages; see order M-1001.", id="red")],
    "both": [Document("Red.", id="red"), Document("Blue.", id="blue")],
}


def find(query: str) -> list[Document]:
    """Find books."""
    return SHELF.get(query, [])


def order(order_id: Annotated[str, Seen(r"M-\d{4}")]) -> str:
    """Look up an order."""
    return f"{order_id} is on its way."


def run(*replies: Any, question: str = "How thick?", tools: Any = (find, order), **options: Any) -> Any:
    with ScriptedLM(*replies, **options) as lm, dspy.context(lm=lm):
        return ReAct(Ask, tools=tools)(question=question), lm


def arguments(request: ScriptedRequest, name: str) -> dict[str, Any]:
    """The schema of the arguments of one of the calls that a step may make."""
    step = request.schema["properties"]["tool_call"]
    (found,) = (c for c in step.get("anyOf", [step]) if c["properties"]["name"]["enum"] == [name])
    return found["properties"]["args"]["properties"]


def feedback(lm: ScriptedLM) -> str:
    return lm.requests[-1].messages[-1]["content"]


def test_an_answer_can_only_cite_documents_that_the_run_was_given():
    _, lm = run(call("find", query="red"), call("find", query="both"), finish(answer="99", citations=["red"]))
    citations = [arguments(request, "finish")["citations"] for request in lm.requests]
    assert [c["maxItems"] for c in citations] == [0, 1, 2]
    assert [c["items"].get("enum") for c in citations] == [None, ["red"], ["red", "blue"]]


@pytest.mark.parametrize("schema", [True, False])
def test_an_invented_citation_is_told_what_may_be_cited(schema: bool):
    prediction, lm = run(
        call("find", query="both"),
        finish(answer="99", citations=["red", "green"]),
        finish(answer="99", citations=["red"]),
        response_schema=schema,
    )
    assert prediction.citations == ["red"]
    assert feedback(lm) == (
        "Error: citations: 'green' has not been seen; known: red, blue. Call finish again with outputs that fit."
    )


def test_an_answer_that_keeps_citing_what_it_has_not_seen_is_no_answer():
    with pytest.raises(RunError, match="citations: 'red' has not been seen; known: none"):
        run(finish(answer="99", citations=["red"]), finish(answer="99", citations=["red"]))


def test_a_tool_is_not_offered_before_its_argument_has_been_seen():
    _, lm = run(call("find", query="red"), call("order", order_id="M-1001"), finish(answer="On its way.", citations=[]))
    assert [request.offered for request in lm.requests] == [
        ["find", "finish"],
        ["find", "order", "finish"],
        ["find", "finish"],  # M-1001 has been looked up, and there is no other order
    ]
    assert arguments(lm.requests[1], "order")["order_id"] == {"type": "string", "enum": ["M-1001"]}


def test_what_stands_in_the_question_has_been_seen():
    _, lm = run(finish(answer="?", citations=[]), question="Where are M-1001, M-2002 and M-1001?")
    assert arguments(lm.requests[0], "order")["order_id"]["enum"] == ["M-1001", "M-2002"]


def test_an_lm_that_makes_an_argument_up_is_told_and_the_tool_is_not_called():
    called = []

    def cancel(order_id: Annotated[str, Seen(r"M-\d{4}")]) -> str:
        """Cancel an order."""
        called.append(order_id)
        return "cancelled"

    prediction, _ = run(
        call("cancel", order_id="M-6666"),
        call("cancel", order_id="M-1001"),
        finish(answer="Done.", citations=[]),
        question="Cancel M-1001.",
        tools=[cancel],
        response_schema=False,
    )
    assert called == ["M-1001"]
    observed = [turn.observation for turn in prediction.trajectory]
    assert observed[0] == "Error: order_id: 'M-6666' has not been seen; known: M-1001"


def test_an_argument_made_up_does_not_count_as_seen_afterwards():
    def move(order_id: Annotated[str, Seen(r"M-\d{4}")], day: str) -> str:
        """Move an order."""
        return f"moved to {day}"

    prediction, lm = run(
        call("move", order_id="M-6666", day="Monday"),
        call("move", order_id="M-6666", day="Tuesday"),
        finish(answer="?", citations=[]),
        question="Move M-1001.",
        tools=[move],
    )
    assert [turn.observation.split(":")[0] for turn in prediction.trajectory] == ["Error", "Error"]
    assert arguments(lm.requests[2], "move")["order_id"]["enum"] == ["M-1001"]


def test_a_made_up_argument_is_not_offered_at_the_next_step():
    _, lm = run(
        call("order", order_id="M-6666"),
        finish(answer="?", citations=[]),
        question="Where is M-1001?",
    )
    assert arguments(lm.requests[1], "order")["order_id"]["enum"] == ["M-1001"]


@pytest.mark.parametrize(
    "tool",
    [
        dspy.Tool(order),
        dspy.Tool(partial(order), name="order", desc="Look up an order."),
        dspy.Tool(lambda order_id: "x", name="order", args={"order_id": {"type": "string"}}),
    ],
    ids=["function", "partial", "lambda"],
)
def test_a_tool_of_any_make_can_be_called(tool: dspy.Tool):
    prediction, _ = run(
        call("order", order_id="M-1001"), finish(answer="x", citations=[]), question="M-1001?", tools=[tool]
    )
    assert not prediction.trajectory[0].observation.startswith("Error")


class Source(pydantic.BaseModel):
    id: Citation


def misplacing(annotation: Any) -> ReAct:
    return ReAct(Ask.append("more", dspy.OutputField(), annotation), tools=[])


def several(order_ids: list[Annotated[str, Seen(r"M-\d{4}")]]) -> str:
    """Look up several orders."""
    return "on their way"


@pytest.mark.parametrize(
    ("declare", "where"),
    [
        (lambda: misplacing(Citation), "finish: 'more'"),
        (lambda: misplacing(list[Citation] | None), "finish: 'more'"),
        (lambda: misplacing(Annotated[str, Seen("x")]), "finish: 'more'"),
        (lambda: misplacing(list[Source]), "Source: the model"),
        (lambda: ReAct(Ask, tools=[several]), "several: 'order_ids'"),
    ],
)
def test_a_mark_without_effect_is_refused(declare: Any, where: str):
    with pytest.raises(ProgramError) as caught:
        declare()
    assert str(caught.value) == (
        f"{where} can't be checked against seen values: Citation is supported only in "
        "list[oneturn.Citation], Seen only in a tool's plain str argument."
    )


def test_the_prompt_does_not_tell_of_the_marks():
    _, lm = run(finish(answer="?", citations=[]))
    system = lm.requests[0].messages[0]["content"]
    assert "- order(order_id: string): Look up an order." in system
    assert "citations: list of string" in system


def calculate(expression: Annotated[str, SeenNumbers()]) -> str:
    """Compute an expression."""
    return str(eval(expression))


PRICES = {"cups": "Cups cost €1,204.50 a box (order M-1001, 2025-09-26); lids €3.10."}


def price(item: str) -> str:
    """Look up a price."""
    return PRICES.get(item, "Nothing was found.")


def test_without_another_tool_a_calculation_takes_the_question_s_numbers_at_once():
    prediction, lm = run(
        call("calculate", expression="150 * 12"),
        call("calculate", expression="1800 * 7777"),
        finish(answer="1800", citations=[]),
        question="What do 150 boxes cost at 12 euros?",
        tools=[calculate],
    )
    assert lm.requests[0].offered == ["calculate", "finish"]
    assert [turn.observation for turn in prediction.trajectory] == [
        "1800",
        "Error: expression: '7777' has not been seen; known: 150, 12, 1800",
    ]


def test_without_another_tool_small_numbers_that_stand_in_words_can_be_calculated_with():
    prediction, lm = run(
        call("calculate", expression="12 * 15"),
        finish(answer="180", citations=[]),
        question="What is twelve times fifteen?",
        tools=[calculate],
    )
    assert lm.requests[0].offered == ["calculate", "finish"]
    assert [turn.observation for turn in prediction.trajectory] == ["180"]


def test_a_calculation_takes_numbers_of_the_run_and_small_whole_ones():
    prediction, lm = run(
        call("price", item="cups"),
        call("calculate", expression="2 * 1204.50 + 3.10"),
        finish(answer="2412.10", citations=[]),
        question="What are 150 boxes?",
        tools=[price, calculate],
    )
    assert [request.offered for request in lm.requests] == [
        ["price", "finish"],  # nothing was looked up yet
        ["price", "calculate", "finish"],
        ["price", "calculate", "finish"],
    ]
    assert prediction.trajectory[1].observation == "2412.1"
    pattern = arguments(lm.requests[1], "calculate")["expression"]["pattern"]
    for taken in ("2 * 1204.50 + 3.10", "150 * 3.10", "3.10 / 100", "(1204.50 + 3.10) * 2"):
        assert re.search(pattern, taken), taken
    for refused in ("3.10", "14.50 * 3", "1001 + 1", "2025 - 1", "101 * 2", "3.10 ** 2", "3.10 + x"):
        assert not re.search(pattern, refused), refused


@pytest.mark.parametrize("asked", ["schema", "text"])
@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("14.50 * 3", "Error: expression: '14.50' has not been seen; known: 1204.50, 3.10"),
        ("1204.50 * 101", "Error: expression: '101' has not been seen; known: 1204.50, 3.10"),
        ("1204.5 * 1.031", None),  # 3.1 percent on top
        ("1204.50 * 3 / 100", None),
    ],
)
def test_an_lm_that_calculates_with_invented_numbers_is_told(asked: str, expression: str, message: str | None):
    replies = (
        call("price", item="cups"),
        call("calculate", expression=expression),
        finish(answer="?", citations=[]),
    )
    with ScriptedLM(*replies, response_schema=asked == "schema") as lm, dspy.context(lm=lm):
        prediction = ReAct(Ask, tools=[price, calculate], tool_calling=asked)(question="What are boxes?")
    observed = prediction.trajectory[1].observation
    assert observed == (message or str(eval(expression)))


def test_a_calculation_before_any_look_up_is_told_to_look_up():
    prediction, _ = run(
        call("calculate", expression="2 * 3"),
        finish(answer="?", citations=[]),
        tools=[price, calculate],
        response_schema=False,
    )
    assert prediction.trajectory[0].observation == (
        "Error: expression: no tool has returned a number yet; look the numbers up first"
    )


def status(region: str, order_id: Annotated[str, Seen(r"M-\d{4}")] = "") -> str:
    """Say how orders of a region do, or one of them."""
    return f"{region} {order_id}: well"


def test_an_optional_argument_that_nothing_matches_may_be_left_out():
    prediction, lm = run(
        call("status", region="EU"), finish(answer="Well.", citations=[]), question="How is the EU?", tools=[status]
    )
    assert prediction.trajectory[0].observation == "EU : well"
    assert "order_id" not in arguments(lm.requests[0], "status")


def test_an_optional_argument_is_checked_where_it_is_given():
    prediction, _ = run(
        call("status", region="EU", order_id="M-6666"),
        call("status", region="EU"),
        finish(answer="Well.", citations=[]),
        question="How is M-1001?",
        tools=[status],
        response_schema=False,
    )
    assert [turn.observation for turn in prediction.trajectory] == [
        "Error: order_id: 'M-6666' has not been seen; known: M-1001",
        "EU : well",
    ]
