"""Any ``dspy.Module`` as a stream of steps: its tools, its thoughts, and its answer while it is being written."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError, LMServerError
from mlflow.entities import Document

import oneturn
from oneturn.core.run_context import LMSettings, RunContext, current_run
from oneturn.core.steps import Answer, AnswerDelta, Thought, ToolCall, ToolResult
from oneturn.core.usage import NO_USAGE, Usage
from oneturn.errors import ProgramError
from oneturn.programs import as_program
from oneturn.testing import ScriptedLM, call, finish, sections


def look_up(item: str) -> str:
    """Look up the price of an item."""
    if item == "gold":
        raise ValueError("no price\nof gold")
    return f"{item} costs 4 euros"


def stream(module: Any, *replies: Any, adapter: Any = None, signature: Any = None, **options: Any) -> list[Any]:
    """Each run has its LM; a run that asks it too often, or not often enough, fails."""
    with ScriptedLM(*replies, **options) as lm, dspy.context(lm=lm, adapter=adapter):
        return list(as_program(module, signature).steps(question="What does tea cost?"))


def answers(steps: list[Any]) -> list[str]:
    """The text of each attempt."""
    texts: dict[int, str] = {}
    for step in steps:
        if isinstance(step, AnswerDelta):
            texts[step.attempt] = texts.get(step.attempt, "") + step.text
    return [texts[attempt] for attempt in sorted(texts)]


def kinds(steps: list[Any]) -> list[type]:
    """The steps' kinds, of deltas that follow each other one."""
    found = [type(step) for step in steps]
    return [kind for i, kind in enumerate(found) if kind is not AnswerDelta or found[i - 1] is not AnswerDelta]


def prediction(steps: list[Any]) -> dspy.Prediction:
    (answer,) = (step for step in steps if isinstance(step, Answer))
    return answer.prediction


def only(steps: list[Any], kind: type) -> list[Any]:
    return [step for step in steps if isinstance(step, kind)]


PREDICT = dspy.Predict("question -> answer")
ANSWER = "Tea costs\n 4 euros."
FORMATS = [
    (dspy.ChatAdapter(), sections(answer=ANSWER)),
    (dspy.JSONAdapter(), json.dumps({"answer": ANSWER})),
    (dspy.XMLAdapter(), f"<answer>\n{ANSWER}\n</answer>"),
]


@pytest.mark.parametrize(("adapter", "reply"), FORMATS)
@pytest.mark.parametrize("options", [{}, {"piece": 1}, {"piece": 1000}, {"streams": False}])
def test_predict_writes_its_answer(adapter: dspy.Adapter, reply: str, options: dict[str, Any]):
    steps = stream(PREDICT, reply, adapter=adapter, **options)
    assert answers(steps) == [ANSWER]
    assert kinds(steps) == [AnswerDelta, Answer, Usage]
    assert prediction(steps).answer == ANSWER
    assert (len(only(steps, AnswerDelta)) > 2) == (options in ({}, {"piece": 1}))
    assert steps[-1].lm_calls == 1
    assert steps[-1].tokens > 0


def test_chain_of_thought_thinks_first():
    steps = stream(dspy.ChainOfThought("question -> answer"), sections(reasoning="So.\nAnd so.", answer="4 euros"))
    assert kinds(steps) == [Thought, AnswerDelta, Answer, Usage]
    assert steps[0] == Thought("So.\nAnd so.")


REACT = dspy.ReAct("question -> answer", tools=[look_up])
REACT_SCRIPT = (
    sections(next_thought="see the list", next_tool_name="look_up", next_tool_args={"item": "tea"}),
    sections(next_thought="it's there", next_tool_name="finish", next_tool_args={}),
    sections(reasoning="as the list says", answer="4 euros"),
)
REACT_V2 = dspy.ReActV2("question -> answer", tools=[look_up])


def v2_step(thought: str, *calls: tuple[str, dict[str, Any]]) -> str:
    made = [{"name": name, "args": args} for name, args in calls]
    return sections(next_thought=thought, tool_calls={"tool_calls": made})


V2_SCRIPT = (
    v2_step("see the list", ("look_up", {"item": "tea"})),
    v2_step("it's there", ("submit", {"answer": "4 euros"})),
)


@pytest.mark.parametrize(("module", "script", "lm_calls"), [(REACT, REACT_SCRIPT, 3), (REACT_V2, V2_SCRIPT, 2)])
def test_an_agent_tells_its_tool_calls_and_not_how_it_ends(module: dspy.Module, script: Any, lm_calls: int):
    steps = stream(module, *script)
    assert kinds(steps)[:4] == [Thought, ToolCall, ToolResult, Thought]
    assert kinds(steps)[-3:] == [AnswerDelta, Answer, Usage]
    (asked,), (found,) = only(steps, ToolCall), only(steps, ToolResult)
    assert (asked.name, asked.args) == ("look_up", {"item": "tea"})
    assert (found.name, found.output, found.is_error) == ("look_up", "tea costs 4 euros", False)
    assert asked.call_id == found.call_id
    assert [thought.text for thought in only(steps, Thought)][:2] == ["see the list", "it's there"]
    assert answers(steps) == ["4 euros"]
    assert len(only(steps, AnswerDelta)) > 1
    assert steps[-1].lm_calls == lm_calls


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter(use_native_function_calling=False)])
def test_react_v2_reads_earlier_turns_as_what_it_submitted(adapter: dspy.Adapter):
    history = dspy.History(messages=[{"question": "Is there tea?", "answer": "There is."}, {"question": "Really?"}])
    program = as_program(REACT_V2)
    submitted = {"tool_calls": [{"name": "submit", "args": {"answer": "4 euros"}}]}
    reply = sections(next_thought="", tool_calls=submitted)
    if isinstance(adapter, dspy.JSONAdapter):
        reply = json.dumps({"next_thought": "", "tool_calls": submitted})
    with ScriptedLM(reply) as lm, dspy.context(lm=lm, adapter=adapter):
        list(program.steps(question="What does it cost?", history=history))
    said = "\n".join(message["content"] for message in lm.requests[0].messages[1:])
    places = [said.index(text) for text in ("Is there tea?", "There is.", "Really?", "What does it cost?")]
    assert places == sorted(places)
    assert "submit" in said
    assert len(history.messages) == 2
    assert program.signature.input_fields["history"].is_required() is False


def test_a_tool_that_fails_is_told_in_one_line():
    replies = (v2_step("gold", ("look_up", {"item": "gold"}), ("look_up", {"thing": "x"})), V2_SCRIPT[1])
    results = only(stream(REACT_V2, *replies), ToolResult)
    assert [(result.output, result.is_error) for result in results] == [
        ("Error: no price of gold", True),
        ("Error: Arg thing is not in the tool's args.", True),
    ]


def test_a_tool_named_finish_is_the_user_s_own_elsewhere():
    tool = dspy.Tool(lambda: "done", name="finish")

    class Mine(dspy.Module):
        signature = "question -> answer"

        def forward(self, question: str) -> str:
            return str(tool())

    assert [step.name for step in only(stream(Mine()), ToolCall)] == ["finish"]


def test_documents_of_a_tool_can_be_cited():
    def search(query: str) -> list[Document]:
        """Search."""
        return [Document("Tea costs 4 euros.", id="t1")]

    module = dspy.ReActV2("question -> answer", tools=[search])
    (found,) = only(stream(module, v2_step("", ("search", {"query": "tea"})), V2_SCRIPT[1]), ToolResult)
    assert (found.output, [document.id for document in found.documents]) == ("[t1] Tea costs 4 euros.", ["t1"])


class Parallel(dspy.Module):
    """Calls its tool, and a predictor, in parallel threads."""

    signature = "question -> answer"

    def __init__(self) -> None:
        super().__init__()
        self.tool = dspy.Tool(look_up)
        self.judge = dspy.Predict("item -> verdict")

    def forward(self, question: str) -> dspy.Prediction:
        runner = dspy.Parallel(num_threads=4, disable_progress_bar=True)
        items = ["tea", "milk", "gold", "salt"]
        found = dspy.Parallel(num_threads=4, disable_progress_bar=True, max_errors=10).forward(
            [(self.tool, {"item": item}) for item in items]
        )
        verdicts = runner([(self.judge, {"item": item}) for item in items])
        return dspy.Prediction(answer=f"{found} {[verdict.verdict for verdict in verdicts]}")


def test_tools_and_predictors_in_parallel_threads_are_told_too():
    steps = stream(Parallel(), *[sections(verdict="good")] * 4)
    asked, found = only(steps, ToolCall), only(steps, ToolResult)
    assert sorted(step.args["item"] for step in asked) == ["gold", "milk", "salt", "tea"]
    items = {step.call_id: step.args["item"] for step in asked}
    for result in found:
        item = items.pop(result.call_id)
        assert result.output == ("Error: no price of gold" if item == "gold" else f"{item} costs 4 euros")
    assert items == {}
    assert steps[-1].lm_calls == 4
    assert steps[-1].output_tokens == 4 * len(sections(verdict="good").split())


# ---- the answer is written more than once


class Drafting(dspy.Module):
    signature = "question -> answer"

    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> answer")
        self.mend = dspy.Predict("question, draft -> answer")
        self.tool = dspy.Tool(look_up)

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.draft(question=question).answer
        self.tool(item="tea")
        return self.mend(question=question, draft=draft)


def test_the_last_of_several_answers_counts():
    steps = stream(Drafting(), sections(answer="5 euros"), sections(answer="4 euros"))
    assert answers(steps) == ["5 euros", "4 euros"]
    assert kinds(steps) == [AnswerDelta, ToolCall, ToolResult, AnswerDelta, Answer, Usage]


def test_an_answer_that_forward_changes_is_told_anew():
    class Loud(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.say = dspy.Predict("question -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer=self.say(question=question).answer.upper())

    assert answers(stream(Loud(), sections(answer="four euros"))) == ["four euros", "FOUR EUROS"]


def test_an_answer_that_is_taken_back_leaves_none():
    class Silent(Drafting):
        def forward(self, question: str) -> dspy.Prediction:
            self.draft(question=question)
            return dspy.Prediction(answer="")

    assert answers(stream(Silent(), sections(answer="four"))) == ["four", ""]


def test_a_reply_that_cannot_be_parsed_is_asked_for_again_as_json():
    module = dspy.Predict("question -> answer, n: int")
    steps = stream(module, sections(answer="Perhaps 5"), json.dumps({"answer": "4 euros", "n": 4}))
    assert answers(steps) == ["Perhaps 5", "4 euros"]
    assert len(only(steps, AnswerDelta)) > 4
    assert steps[-1].lm_calls == 2


def test_an_adapter_chosen_inside_the_module_is_read_too():
    class Choosing(Drafting):
        def forward(self, question: str) -> dspy.Prediction:
            with dspy.context(adapter=dspy.JSONAdapter()):
                return self.draft(question=question)

    assert len(only(stream(Choosing(), json.dumps({"answer": ANSWER})), AnswerDelta)) > 2


def test_the_best_of_several_runs_is_the_answer():
    best = dspy.BestOfN(PREDICT, N=2, reward_fn=lambda inputs, made: float(made.answer == "4 euros"), threshold=2.0)
    steps = stream(best, sections(answer="4 euros"), sections(answer="5 euros"), signature="question -> answer")
    assert prediction(steps).answer == "4 euros"
    assert answers(steps)[-1] == "4 euros"


def test_the_same_comes_from_the_cache():
    with ScriptedLM(sections(answer=ANSWER), cache=True) as lm, dspy.context(lm=lm):
        program = as_program(PREDICT)
        asked, cached = (list(program.steps(question="?")) for _ in range(2))
    assert answers(cached) == answers(asked) == [ANSWER]
    assert len(only(cached, AnswerDelta)) == 1
    assert cached[-1] == NO_USAGE


# ---- agents in agents


def test_what_a_tool_does_inside_is_its_own():
    expert = dspy.ChainOfThought("question -> answer")
    helper = dspy.Tool(look_up)

    def ask_expert(question: str) -> str:
        """Ask an expert."""
        helper(item="tea")
        return str(expert(question=question).answer)

    module = dspy.ReActV2("question -> answer", tools=[ask_expert])
    script = (v2_step("ask", ("ask_expert", {"question": "?"})), sections(reasoning="hm", answer="no"), V2_SCRIPT[1])
    steps = stream(module, *script)
    assert answers(steps) == ["4 euros"]
    assert [step.name for step in only(steps, ToolCall)] == ["ask_expert"]
    assert [step.text for step in only(steps, Thought)] == ["ask", "it's there"]
    assert steps[-1].lm_calls == 3


def test_a_oneturn_react_may_be_a_part():
    class Rewriting(dspy.Module):
        signature = "question -> answer, sure: bool"

        def __init__(self) -> None:
            super().__init__()
            self.rewrite = dspy.Predict("question -> query")
            self.agent = oneturn.ReAct("query -> answer, sure: bool", tools=[look_up])

        def forward(self, question: str) -> dspy.Prediction:
            return self.agent(query=self.rewrite(question=question).query)

    script = (sections(query="tea"), call("look_up", "see", item="tea"), finish("there", answer="4 euros", sure=True))
    steps = stream(Rewriting(), *script)
    assert kinds(steps) == [Thought, ToolCall, ToolResult, Thought, AnswerDelta, Answer, Usage]
    assert answers(steps) == ["4 euros"]
    assert len(only(steps, AnswerDelta)) > 1


# ---- what forward gives


class Giving(dspy.Module):
    signature = "question -> answer, n: int"

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def forward(self, question: str) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def test_outputs_without_text_are_no_answer():
    steps = stream(dspy.Predict("question -> n: int, tags: list[str]"), sections(n=3, tags=["a"]))
    assert kinds(steps) == [Answer, Usage]
    assert (prediction(steps).n, prediction(steps).tags) == (3, ["a"])


def test_a_dict_is_as_good_as_a_prediction():
    assert prediction(stream(Giving({"answer": "4", "n": 4}))).toDict() == {"answer": "4", "n": 4}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "Giving.forward returned 3; it must return a dspy.Prediction with answer, n"),
        (None, "Giving.forward returned None"),
        (dspy.Prediction(answer="4"), "a dspy.Prediction without 'n'"),
        ("4 euros", "a dspy.Prediction without 'n'"),
    ],
)
def test_other_outputs_are_refused(given: Any, message: str):
    with pytest.raises(ProgramError, match=message):
        stream(Giving(given))


def test_what_a_module_raises_comes_out_unchanged():
    error = KeyError("mine")
    with pytest.raises(KeyError) as raised:
        stream(Giving(error))
    assert raised.value is error


def test_errors_of_the_lm_and_of_its_replies_come_out():
    with pytest.raises(AdapterParseError):
        stream(PREDICT, "no", "no")
    with pytest.raises(LMServerError):
        stream(PREDICT, LMServerError("gone"))


# ---- served


def test_it_is_served_like_any_program():
    agent = oneturn.ResponsesAdapter(dspy.ReActV2("question, mood -> answer, n: int", tools=[look_up]))
    submit = v2_step("there", ("submit", {"answer": "4 euros", "n": 4}))
    request = {"input": [{"role": "user", "content": "Tea?"}], "custom_inputs": {"mood": "curious"}}
    with ScriptedLM(V2_SCRIPT[0], submit) as lm, dspy.context(lm=lm):
        events = [event.model_dump() for event in agent.predict_stream(request)]
    assert "curious" in lm.requests[0].text
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "4 euros"
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.completed"
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "function_call",
        "function_call_output",
        "reasoning",
        "message",
    ]
    assert response["custom_outputs"] == {"n": 4}
    assert response["usage"]["output_tokens"] > 0


def test_a_module_that_is_not_a_chat_gives_structured_outputs():
    agent = oneturn.ResponsesAdapter(dspy.Predict("text -> n: int, tags: list[str]"))
    with ScriptedLM(sections(n=3, tags=["a"])) as lm, dspy.context(lm=lm):
        response = agent.predict({"input": [], "custom_inputs": {"text": "a b c"}})
    assert response.custom_outputs == {"n": 3, "tags": ["a"]}


class Users(dspy.Module):
    """Reads whose run it is, in the threads of dspy.Parallel."""

    signature = "question -> answer"

    def forward(self, question: str) -> dspy.Prediction:
        read = Reads()
        runs = dspy.Parallel(num_threads=2, disable_progress_bar=True)([(read, {"number": 1}), (read, {"number": 2})])
        return dspy.Prediction(answer=" ".join(run.caller for run in runs))


class Reads(dspy.Module):
    def forward(self, number: int) -> dspy.Prediction:
        run = current_run()
        return dspy.Prediction(caller=f"{run.caller}, limited: {run.remaining() is not None}, {run.reason}")


def test_parallel_threads_belong_to_the_run():
    with RunContext(60, caller="ann").active():
        steps = stream(Users())
    assert prediction(steps).answer == " ".join(["ann, limited: True, None"] * 2)


def test_asynchronous_calls_have_the_request_s_settings():
    class Asynchronous(dspy.Module):
        signature = "question -> answer"

        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            return asyncio.run(self.answer.acall(question=question))

    seen: list[dict[str, Any]] = []

    class Adapter(dspy.ChatAdapter):
        async def acall(self, lm: Any, lm_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            seen.append(dict(lm_kwargs))
            return [{"answer": "Four."}]

    run = RunContext()
    run.lm_settings = LMSettings(temperature=0.9, max_output_tokens=50)
    with run.active():
        assert prediction(stream(Asynchronous(), adapter=Adapter())).answer == "Four."
    assert seen == [{"temperature": 0.9, "max_tokens": 50}]
