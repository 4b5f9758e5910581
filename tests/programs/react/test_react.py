"""``oneturn.ReAct`` as a DSPy module, and every way in which a run ends."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import dspy
import pydantic
import pytest
from dspy.lm15 import ContextLengthError, RateLimitError
from dspy.teleprompt import BootstrapFewShot
from dspy.utils.callback import BaseCallback

from oneturn import ReAct
from oneturn.core.steps import Resumption
from oneturn.errors import OneTurnError, ProgramError, RunError
from oneturn.testing import ScriptedLM, call, finish

ADVICE = "Compile the program, raise max_iters, or take a stronger LM."


class Price(pydantic.BaseModel):
    amount: float
    currency: Literal["EUR", "CHF"]


class Ask(dspy.Signature):
    """Answer from the price list."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class AskPrice(dspy.Signature):
    """Answer from the price list."""

    question: str = dspy.InputField(desc="as the customer wrote it")
    limit: int = dspy.InputField(default=3)
    answer: str = dspy.OutputField(desc="one sentence")
    price: Price = dspy.OutputField()
    alternatives: list[str] = dspy.OutputField()
    note: str | None = dspy.OutputField(default=None)


PRICES = {"beans": "14.50 EUR", "filter": "12.00 EUR"}


def look_up(item: str) -> str:
    """Look up the price of an item.

    The second paragraph warns.
    """
    return PRICES[item]


def broken(path: str) -> str:
    """Read a file."""
    raise RuntimeError("the disk said no\n  and then no again")


def program(**options: Any) -> ReAct:
    return ReAct(Ask, tools=[look_up, broken], **options)


def run(*replies: Any, agent: ReAct | None = None, **inputs: Any) -> tuple[dspy.Prediction, ScriptedLM]:
    with ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        return (agent or program())(**(inputs or {"question": "What do beans cost?"})), lm


def failed(*replies: Any, agent: ReAct | None = None) -> RunError:
    with pytest.raises(RunError) as caught:
        run(*replies, agent=agent)
    return caught.value


def last_user_message(lm: ScriptedLM) -> str:
    return lm.requests[-1].messages[-1]["content"]


# ---- what it promises


def test_a_question_that_needs_one_tool_costs_two_lm_calls():
    prediction, lm = run(call("look_up", item="beans"), finish(answer="14.50 EUR"))
    assert prediction.answer == "14.50 EUR"
    assert [turn.observation for turn in prediction.trajectory] == ["14.50 EUR"]
    assert len(lm.requests) == 2


def test_outputs_have_the_types_of_the_signature():
    agent = ReAct(AskPrice, tools=[look_up])
    outputs = {"answer": "It's 14.50.", "price": {"amount": 14.5, "currency": "EUR"}, "alternatives": ["tea"]}
    prediction, _ = run(finish(**outputs), agent=agent, question="beans?", limit=1)
    assert prediction.price == Price(amount=14.5, currency="EUR")
    assert prediction.alternatives == ["tea"]
    assert prediction.note is None


def test_the_prompt_is_a_chat_that_only_grows_at_its_end():
    _, lm = run(
        call("look_up", "the list", item="beans"), call("look_up", "and", item="filter"), finish(answer="26.50")
    )
    chats = [request.messages for request in lm.requests]
    assert chats[1][: len(chats[0])] == chats[0]
    assert chats[2][: len(chats[1])] == chats[1]
    assert [message["role"] for message in chats[2]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert json.loads(chats[2][2]["content"]) == call("look_up", "the list", item="beans")
    assert chats[2][3]["content"] == "14.50 EUR"


def test_the_prompt_tells_the_tools_and_what_the_fields_mean():
    _, lm = run(
        finish(answer="x", price={"amount": 1, "currency": "EUR"}, alternatives=[], note=None),
        agent=ReAct(AskPrice, tools=[look_up]),
        question="beans?",
    )
    system = lm.requests[0].messages[0]["content"]
    assert "- look_up(item: string): Look up the price of an item." in system
    assert "Look up the price of an item. The second paragraph warns." in system, "the whole docstring"
    assert "one sentence" in system
    assert "- question: as the customer wrote it" in system
    assert lm.requests[0].messages[1]["content"] == "question: beans?\nlimit: 3", "defaults are sent too"


def test_the_schema_lets_a_step_be_one_call_of_a_tool_with_its_own_arguments():
    _, lm = run(finish(answer="x"), agent=program(thoughts=False))
    step = lm.requests[0].schema
    assert set(step["properties"]) == {"tool_call"}
    assert lm.requests[0].offered == ["look_up", "broken", "finish"]
    look = step["properties"]["tool_call"]["anyOf"][0]["properties"]["args"]
    assert (list(look["properties"]), look["required"], look["additionalProperties"]) == (["item"], ["item"], False)


def test_an_lm_without_schema_support_is_not_asked_for_one():
    with ScriptedLM(finish(answer="x"), response_schema=False) as lm, dspy.context(lm=lm):
        assert program()(question="?").answer == "x"
    assert lm.requests[0].schema is None


def test_one_program_serves_many_runs_and_keeps_nothing_of_them():
    agent = program()
    for _ in range(2):
        prediction, lm = run(call("look_up", item="beans"), finish(answer="14.50 EUR"), agent=agent)
        assert len(prediction.trajectory) == 1
        assert len(lm.requests[0].messages) == 2


# ---- as DSPy has it


def compiled() -> ReAct:
    trainset = [dspy.Example(question="What do beans cost?", answer="14.50 EUR").with_inputs("question")]
    metric = lambda gold, pred, trace=None: gold.answer == pred.answer  # noqa: E731
    with ScriptedLM(call("look_up", "see the list", item="beans"), finish("it's there", answer="14.50 EUR")) as lm:
        dspy.configure(lm=lm)
        return BootstrapFewShot(metric=metric, max_labeled_demos=0).compile(program(), trainset=trainset)


def prompt_of(agent: ReAct) -> tuple[Any, ...]:
    _, lm = run(finish(answer="12.00 EUR"), agent=agent, question="And a filter?")
    return lm.requests[0].messages


def test_an_optimizer_s_demo_is_shown_as_whole_chat_turns():
    system, *chat = prompt_of(compiled())
    assert "14.50" not in system["content"]
    assert [message["role"] for message in chat] == ["user", "assistant", "user", "assistant", "user"]
    assert chat[0]["content"] == "question: What do beans cost?"
    assert json.loads(chat[1]["content"]) == call("look_up", "see the list", item="beans")
    assert chat[2]["content"] == "14.50 EUR"
    assert json.loads(chat[3]["content"]) == finish("it's there", answer="14.50 EUR")
    assert chat[4]["content"] == "question: And a filter?"


def labelled(agent: ReAct, **row: Any) -> ReAct:
    agent.step.demos = [dspy.Example(id="train-7", **row)]
    return agent


def test_a_labelled_row_is_a_demo_without_its_steps():
    agent = labelled(program(), question="What do beans cost?", answer="14.50 EUR")
    _, asked, left_out, finished, last = prompt_of(agent)
    assert asked["content"] == "question: What do beans cost?"
    assert left_out == {"role": "user", "content": "(The steps in between are left out.)"}
    assert json.loads(finished["content"]) == finish(answer="14.50 EUR")
    assert last["content"] == "question: And a filter?"
    assert "train-7" not in "".join(message["content"] for message in agent.shared_messages())


def test_a_labelled_row_of_an_agent_without_tools_leaves_nothing_out():
    agent = labelled(ReAct("question -> answer", tools=[]), question="What do beans cost?", answer="14.50 EUR")
    assert [message["role"] for message in prompt_of(agent)] == ["system", "user", "assistant", "user"]


def test_a_row_without_outputs_is_no_demo():
    assert len(prompt_of(labelled(program(), question="What do beans cost?"))) == 2


def test_the_optimizers_find_one_predictor_and_may_rewrite_its_instructions():
    agent = program()
    assert [name for name, _ in agent.named_predictors()] == ["step"]
    agent.step.signature = agent.step.signature.with_instructions("Speak like a pirate.")
    system = prompt_of(agent)[0]["content"]
    assert system.startswith("Speak like a pirate.")
    assert "- look_up(item: string)" in system


def test_a_saved_state_gives_the_same_demos_and_the_same_prompt():
    agent = compiled()
    state = json.loads(json.dumps(agent.dump_state()))
    loaded = program()
    loaded.load_state(state)
    assert prompt_of(loaded) == prompt_of(agent)
    assert json.loads(json.dumps(loaded.dump_state())) == state
    assert state["step"]["demos"][0]["trajectory"][0]["observation"] == "14.50 EUR"


def test_copies_are_independent_and_a_reset_copy_has_forgotten_its_demos():
    agent = compiled()
    copied, reset = agent.deepcopy(), agent.reset_copy()
    assert prompt_of(copied) == prompt_of(agent)
    assert len(prompt_of(reset)) == 2
    copied.step.demos = []
    assert len(agent.step.demos) == 1


def test_a_run_leaves_one_entry_in_dspy_s_trace_with_all_that_led_to_its_end():
    with dspy.context(trace=[]):
        run(call("look_up", item="beans"), "not a step", call("look_up", item="filter"), finish(answer="26.50 EUR"))
        ((predictor, inputs, outputs),) = dspy.settings.trace
    assert isinstance(predictor, dspy.Predict)
    assert inputs["question"] == "What do beans cost?"
    assert [turn["tool_call"]["args"]["item"] for turn in inputs["trajectory"] if turn["tool_call"]] == [
        "beans",
        "filter",
    ]
    assert outputs.tool_call["args"] == {"answer": "26.50 EUR"}


def test_dspy_s_trace_stays_as_short_as_dspy_keeps_it():
    with dspy.context(trace=[], max_trace_size=2):
        for answer in "abc":
            run(finish(answer=answer))
        assert [outputs.tool_call["args"]["answer"] for _, _, outputs in dspy.settings.trace] == ["b", "c"]
    with dspy.context(trace=[], max_trace_size=0):
        run(finish(answer="x"))
        assert dspy.settings.trace == []


def test_usage_is_tracked_as_dspy_does():
    with dspy.track_usage() as usage:
        run(call("look_up", item="beans"), finish(answer="14.50 EUR"))
    total = usage.get_total_tokens()["scripted/lm"]
    assert total["total_tokens"] == total["prompt_tokens"] + total["completion_tokens"] > 0
    with ScriptedLM(call("look_up", item="beans"), finish(answer="14.50 EUR")) as lm:
        dspy.configure(lm=lm, track_usage=True)
        assert program()(question="What do beans cost?").get_lm_usage()["scripted/lm"] == total


def test_callbacks_see_the_program_its_lm_calls_and_its_tools():
    class Listener(BaseCallback):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            self.heard.append(f"{type(instance).__name__} starts")

        def on_module_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
            self.heard.append("module ends" if exception is None else "module fails")

        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            self.heard.append("LM starts")

        def on_lm_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
            self.heard.append("LM ends")

        def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            self.heard.append(f"{instance.name} starts")

        def on_tool_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
            self.heard.append("tool ends" if exception is None else "tool fails")

    listener = Listener()
    with dspy.context(callbacks=[listener]):
        run(call("look_up", item="beans"), call("broken", path="/x"), finish(answer="14.50 EUR"))
    one_lm_call = ["Predict starts", "LM starts", "LM ends", "module ends"]
    assert listener.heard == [
        "ReAct starts",
        *one_lm_call,
        *["look_up starts", "tool ends"],
        *one_lm_call,
        *["broken starts", "tool fails"],
        *one_lm_call,
        "module ends",
    ]


def test_an_input_may_have_the_name_of_an_argument():
    program = ReAct("at, inputs, tools -> answer", tools=[])
    program.set_lm(ScriptedLM(finish(answer="noon")))
    *_, answer, _ = program.resume(Resumption(None, ()), at="Oslo", inputs="x", tools="y")
    assert answer.prediction.answer == "noon"


def test_the_majority_of_predictions_is_that_of_their_last_output():
    predictions = [run(finish(answer=answer), agent=ReAct(Ask, tools=[]))[0] for answer in ("7", "8", "8")]
    assert dspy.majority(predictions).answer == "8"


# ---- how a run ends


@pytest.mark.parametrize(
    ("step", "feedback"),
    [
        (call("broken", path="/x"), "Error: the tool failed (RuntimeError)"),
        (call("look_up", item="gold"), "Error: 'gold'"),
        (call("find", item="beans"), "Error: there is no tool 'find'; available tools: look_up, broken, finish"),
        ("I think it's 14.50.", "Error: that was not one JSON object with a tool_call. Write only the JSON object."),
        ("", "Error: that was not one JSON object with a tool_call. Write only the JSON object."),
        (
            '{"tool_call": "finish"}',
            "Error: that was not one JSON object with a tool_call. Write only the JSON object.",
        ),
        ('[{"colour": 1}]', "Error: that was not one JSON object with a tool_call. Write only the JSON object."),
    ],
)
def test_what_goes_wrong_is_one_line_and_the_run_continues(step: Any, feedback: str):
    prediction, lm = run(step, finish(answer="It failed."))
    assert prediction.answer == "It failed."
    assert last_user_message(lm) == feedback
    assert "Traceback" not in lm.requests[-1].text
    assert __file__ not in lm.requests[-1].text


@pytest.mark.parametrize("args", [{}, {"item": 3}, {"item": "beans", "more": 1}])
def test_arguments_that_do_not_fit_are_the_lm_s_to_mend(args: dict[str, Any]):
    _, lm = run(call("look_up", **args), finish(answer="x"))
    feedback = last_user_message(lm)
    assert feedback.startswith("Error: ")
    assert "\n" not in feedback
    assert len(feedback) < 220


@pytest.mark.parametrize("nothing", ["", [], "  \n"])
def test_a_tool_that_gives_nothing_says_so(nothing: Any):
    def search() -> Any:
        """Search."""
        return nothing

    _, lm = run(call("search"), finish(answer="x"), agent=ReAct(Ask, tools=[search]))
    assert last_user_message(lm) == "Nothing was found."


def test_json_that_is_almost_right_is_read():
    prediction, _ = run('```json\n{"thought": "", "tool_call": {"name": "finish", "args": {"answer": "x"}}\n```')
    assert prediction.answer == "x"


def test_a_call_made_before_is_not_made_again_and_only_finish_is_left():
    calls = []

    def count(item: str) -> str:
        """Count an item."""
        calls.append(item)
        return "7"

    _, lm = run(
        call("count", item="cups"),
        call("count", item="cups"),
        call("count", item="cups"),
        finish(answer="7"),
        agent=ReAct(Ask, tools=[count]),
    )
    assert calls == ["cups"]
    assert [request.offered for request in lm.requests] == [["count", "finish"]] * 2 + [["finish"]] * 2
    assert lm.requests[2].messages == lm.requests[1].messages, "an LM that keeps to the schema needs no telling"
    assert last_user_message(lm) == "Error: that call was made before and its result stands above. Call finish."


def test_the_last_step_can_only_be_finish():
    _, lm = run(call("look_up", item="beans"), finish(answer="x"), agent=program(max_iters=2))
    assert [request.offered for request in lm.requests] == [["look_up", "broken", "finish"], ["finish"]]


def test_an_lm_that_never_finishes_runs_out_of_steps():
    error = failed(call("look_up", item="beans"), call("look_up", item="filter"), agent=program(max_iters=2))
    assert error.code == "max_iters"
    assert str(error) == f"The run ended without an answer: 2 steps were taken without a finish call. {ADVICE}"
    assert [turn.observation for turn in error.trajectory] == ["14.50 EUR"]


def test_an_lm_that_never_writes_a_step_ends_the_run():
    error = failed("no", "no", agent=program(max_iters=2))
    assert error.code == "invalid_output"
    assert str(error) == f"The run ended without an answer: the LM's last reply can't be parsed as a step. {ADVICE}"


def test_outputs_that_do_not_fit_are_asked_for_once_more():
    agent = ReAct("question -> count: int", tools=[look_up])
    prediction, lm = run(finish(count="many"), finish(count=3), agent=agent)
    assert prediction.count == 3
    feedback = last_user_message(lm)
    assert feedback.startswith("Error: count: Input should be a valid integer")
    assert feedback.endswith("Call finish again with outputs that fit.")
    assert lm.requests[1].offered == ["finish"]


def test_outputs_that_do_not_fit_twice_end_the_run_with_what_was_done():
    agent = ReAct("question -> count: int", tools=[look_up])
    error = failed(call("look_up", item="beans"), finish(count="many"), finish(), agent=agent)
    assert (error.code, len(error.trajectory)) == ("invalid_output", 2)
    expected = "The run ended without an answer: the outputs don't fit the signature: count: Field required."
    assert str(error) == f"{expected} {ADVICE}"


def test_a_list_or_an_object_that_is_omitted_again_is_empty():
    agent = ReAct("question -> answer, tags: list[str], counts: dict[str, int]", tools=[look_up])
    prediction, lm = run(finish(answer="yes"), finish(answer="yes"), agent=agent)
    assert (prediction.answer, prediction.tags, prediction.counts) == ("yes", [], {})
    assert last_user_message(lm).startswith("Error: tags: Field required.")


def test_a_finish_call_without_any_output_is_no_answer():
    error = failed(finish(), finish(), agent=ReAct("question -> tags: list[str]", tools=[look_up]))
    assert "tags: Field required" in str(error)


def test_the_last_of_max_iters_steps_may_still_be_repaired():
    agent = ReAct("question -> count: int", tools=[], max_iters=1)
    assert run(finish(count="many"), finish(count=3), agent=agent)[0].count == 3


def test_a_prompt_too_long_is_tried_again_with_the_longest_result_cut_in_half():
    def read() -> str:
        """Read the book."""
        return "word " * 100

    prediction, lm = run(
        call("read"), ContextLengthError("too long"), finish(answer="x"), agent=ReAct(Ask, tools=[read])
    )
    before, after = (request.messages[-1]["content"] for request in lm.requests[1:])
    assert before == "word " * 100
    assert after == "word " * 50 + " … (cut: too long)"
    assert prediction.answer == "x"


def test_a_prompt_too_long_with_nothing_left_to_cut_ends_the_run():
    error = failed(ContextLengthError("too long"))
    assert error.code == "context_length_exceeded"
    assert str(error) == f"The run ended without an answer: the prompt is too long for the LM. {ADVICE}"


def test_an_lm_that_can_not_be_asked_is_dspy_s_error():
    with ScriptedLM(RateLimitError("slow down")) as lm, dspy.context(lm=lm), pytest.raises(dspy.LMRateLimitError):
        program()(question="?")


class Filter(pydantic.BaseModel):
    kind: str


def test_what_annotated_types_say_stands_in_the_schema_without_references():
    def search(filter: Annotated[Filter, pydantic.Field(description="what kind")]) -> str:
        """Search."""
        return f"a {type(filter).__name__} of {filter.kind}"

    agent = ReAct("question -> answer", tools=[search])
    prediction, lm = run(call("search", filter={"kind": "tea"}), finish(answer="x"), agent=agent)
    assert prediction.trajectory[0].observation == "a Filter of tea"
    searching = lm.requests[0].schema["properties"]["tool_call"]["anyOf"][0]["properties"]["args"]["properties"]
    assert searching["filter"]["description"] == "what kind"
    assert searching["filter"]["properties"]["kind"]["type"] == "string"
    assert "$ref" not in json.dumps(searching)


class Rate(dspy.Signature):
    """Rate it."""

    question: str = dspy.InputField()
    stars: Annotated[int, pydantic.Field(ge=1, le=5)] = dspy.OutputField()


def test_bounds_of_an_output_are_kept_to():
    prediction, lm = run(finish(stars=9), finish(stars=5), agent=ReAct(Rate, tools=[]))
    assert prediction.stars == 5
    assert last_user_message(lm).startswith("Error: stars: Input should be less than or equal to 5.")
    stars = lm.requests[0].schema["properties"]["tool_call"]["properties"]["args"]["properties"]["stars"]
    assert (stars["minimum"], stars["maximum"]) == (1, 5)


# ---- user errors


class Reserved(dspy.Signature):
    """Think."""

    question: str = dspy.InputField()
    thought: str = dspy.OutputField()


def named_finish(answer: str) -> str:
    """End."""
    return answer


RESERVED = (
    "Reserved can't have a field named 'thought'; give it another name. "
    "ReAct reserves parallel_calls, thought, tool_call, trajectory."
)
USER_ERRORS = [
    (
        lambda: ReAct(Reserved, tools=[]),
        RESERVED,
    ),
    (
        lambda: ReAct(Ask, tools=[dspy.Tool(named_finish, name="finish")]),
        "A tool can't be named 'finish', which is reserved for ending the run. Rename the tool.",
    ),
    (
        lambda: ReAct(Ask, tools=[look_up, dspy.Tool(look_up)]),
        "Two tools are named 'look_up'. Rename one of them.",
    ),
    (lambda: ReAct(Ask, tools=[], max_iters=0), "max_iters is 0; it must be at least 1."),
    (lambda: ReAct(Ask, tools=[])(), "Input 'question' is missing; Ask takes question."),
    (lambda: ReAct(Ask, tools=[])(question="?", k=3), "Input 'k' is unknown; Ask takes question."),
    (
        lambda: ReAct(Ask, tools=[])(question="?"),
        "No LM is configured. Call dspy.configure(lm=…), or program.set_lm(…).",
    ),
    (
        lambda: next(iter(ReAct(Ask, tools=[]).steps())),
        "Input 'question' is missing; Ask takes question.",
    ),
]


@pytest.mark.parametrize(("mistake", "message"), USER_ERRORS, ids=[message for _, message in USER_ERRORS])
def test_a_user_s_mistake_is_told_in_words(mistake: Any, message: str):
    with pytest.raises(ProgramError) as caught:
        mistake()
    assert str(caught.value) == message
    assert isinstance(caught.value, OneTurnError)


def test_a_tool_may_be_any_callable_that_dspy_takes():
    class Counter:
        """Count things."""

        def __call__(self, item: str, at_least: Annotated[int, pydantic.Field(ge=1)] = 1) -> int:
            return 7

    counter = dspy.Tool(Counter(), name="count", desc="Count an item.")
    lookup = dspy.Tool(lambda order_id: "sent", name="order", args={"order_id": {"type": "string"}})
    prediction, lm = run(call("count", item="cups"), finish(answer="7"), agent=ReAct(Ask, tools=[counter, lookup]))
    assert prediction.trajectory[0].observation == "7"
    counting = lm.requests[0].schema["properties"]["tool_call"]["anyOf"][0]["properties"]["args"]
    assert counting["properties"]["at_least"]["minimum"] == 1
