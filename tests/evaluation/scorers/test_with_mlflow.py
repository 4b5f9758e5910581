"""MLflow's own evaluation, run on what oneturn evaluates, with its metrics; and MLflow's rows, read by ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import mlflow
import pandas as pd
import pytest
from mlflow.genai.simulators import BaseSimulatedUserAgent, ConversationSimulator
from mlflow.genai.utils.trace_utils import extract_retrieval_context_from_trace

import oneturn
from oneturn.errors import DataError
from oneturn.evaluation import scorers, to_agent_evaluation
from oneturn.testing import ScriptedLM, call, finish
from tests.evaluation.scorers.desk import MODEL, ROWS, desk
from tests.evaluation.scorers.test_scorers import ALL


def answered(gold: Any, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == gold.answer)


METRICS = [answered, *ALL]


@pytest.fixture
def experiment(traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow as it should be set for this: one run a row, one after the other, as the script of the LM wants it."""
    monkeypatch.setenv("MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION", "true")
    monkeypatch.setenv("MLFLOW_GENAI_EVAL_MAX_WORKERS", "1")
    mlflow.dspy.autolog(disable=True)


def by_mlflow(target: Any, metrics: list[Any]) -> pd.DataFrame:
    data = to_agent_evaluation(ROWS)
    found = mlflow.genai.evaluate(
        data=data, predict_fn=scorers.predict_fn(target), scorers=[scorers.as_mlflow(metric) for metric in metrics]
    )
    frame = found.result_df
    order = {row["question"]: place for place, row in enumerate(ROWS)}
    places = [order[request["question"]] for request in frame["request"]]
    return frame.assign(place=places).sort_values("place")


def test_mlflow_scores_row_by_row_as_oneturn_does(experiment: None):
    ours = oneturn.evaluate(desk(), ROWS, METRICS, inputs=["question"], progress=False).rows
    theirs = by_mlflow(desk(), METRICS)
    for metric in METRICS:
        name = metric.__name__
        assert theirs[f"{name}/value"].tolist() == ours[name].tolist(), name
    assert len(theirs["trace"]) == len(ROWS)


def test_mlflow_scores_a_served_agent_alike_and_its_trace_tells_what_was_found(experiment: None):
    with oneturn.running_server(oneturn.ResponsesAdapter(desk())) as url:
        theirs = by_mlflow(url, METRICS)
    assert theirs["retrieval_recall/value"].tolist() == [1.0, 0.0]
    assert theirs["tool_arguments/value"].tolist() == [1.0, 0.0]
    trace = mlflow.get_trace(theirs["trace_id"].iloc[0])
    (context,) = extract_retrieval_context_from_trace(trace).values()
    assert context[0] == {"content": "The monthly fee is 4 euros.", "doc_uri": "docs/fees.md"}
    assert [span.name for span in trace.search_spans(span_type="TOOL")] == ["search", "add"]


def test_mlflow_scores_a_logged_model_alike(experiment: None, tmp_path: Path):
    (tmp_path / "model.py").write_text(MODEL)
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name="agent", python_model=str(tmp_path / "model.py"), pip_requirements=["mlflow"], input_example=None
        )
    theirs = by_mlflow(info.model_uri, METRICS)
    assert theirs["retrieval_precision/value"].tolist() == [0.5, 0.0]
    assert theirs["answered/value"].tolist() == [1.0, 0.0]
    trace = mlflow.get_trace(theirs["trace_id"].iloc[0])
    assert len(extract_retrieval_context_from_trace(trace)) == 1


def test_failures_and_unjudged_rows_are_reported_to_mlflow(experiment: None):
    class Failing(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            raise ValueError("no")

    theirs = by_mlflow(Failing(), [answered])
    assert theirs["answered/value"].tolist() == [0.0, 0.0]
    judged = scorers.as_mlflow(scorers.tool_use("missing"), name="tools")
    feedback = judged(inputs={"question": "?"}, outputs="an answer", expectations={})
    assert feedback.name == "tools"
    assert feedback.error.error_message.startswith("Not judged: the example has no 'missing' to judge by")


def test_a_trace_of_a_served_agent_is_scored(experiment: None):
    adapter = oneturn.ResponsesAdapter(desk())
    adapter.predict({"input": [{"role": "user", "content": ROWS[0]["question"]}]})
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    labels = {name: value for name, value in ROWS[0].items() if name != "question"}
    for metric in (answered, scorers.tool_use(), scorers.tool_arguments(), scorers.retrieval_recall()):
        judged = scorers.as_mlflow(metric)
        assert judged(inputs=None, outputs=None, expectations=labels, trace=trace).value == 1.0
    only_spans = scorers.as_mlflow(scorers.retrieval_recall())
    assert only_spans(outputs="8 euros", expectations=labels, trace=trace).value == 1.0


def test_the_example_has_the_inputs_by_their_own_names():
    def same(gold: Any, pred: Any, trace: Any = None) -> float:
        return float(gold.query == gold.question == pred.answer)

    assert scorers.as_mlflow(same)(inputs={"query": "so"}, outputs="so").value == 1.0


def test_a_trace_tells_what_was_asked(experiment: None):
    oneturn.ResponsesAdapter(desk()).predict({"input": [{"role": "user", "content": ROWS[0]["question"]}]})

    def asked(gold: Any, pred: Any, trace: Any = None) -> float:
        return float(gold.question == ROWS[0]["question"])

    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    assert scorers.as_mlflow(asked)(trace=trace).value == 1.0


MESSAGES = [{"role": "user", "content": "one?"}]
CONTEXT = [{"doc_uri": "docs/fees.md", "content": "4 euros"}]


@pytest.mark.parametrize(
    "row",
    [
        {"inputs": {"question": "one?"}},
        {"inputs": '{"question": "one?"}'},
        {"inputs": {"query": "one?"}},
        {"inputs": {"messages": MESSAGES}},
        {"inputs": {"input": MESSAGES}},
        {"inputs": {"input": "one?"}},
        {"request": "one?"},
        {"request": {"messages": MESSAGES}},
        {"request": '{"messages": [{"role": "user", "content": "one?"}]}'},
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_rows_of_agent_evaluation_are_read(row: dict[str, Any], older: bool):
    labels = {"expected_response": "1", "expected_facts": ["it is 1"], "expected_retrieved_context": CONTEXT}
    row = row | (labels if older else {"expectations": labels}) | {"tags": {"category": "sums"}, "trace": None}
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(finish(answer="1")))
    found = oneturn.evaluate(program, pd.DataFrame([row]), answered, progress=False).rows.iloc[0]
    assert (found["question"], found["answer"], found["score"], found["error"]) == ("one?", "1", 1.0, None)
    assert (found["expected_response"], found["expected_facts"]) == ("1", ["it is 1"])
    assert (found["expected_sources"], found["category"]) == (["docs/fees.md"], "sums")
    assert "inputs" not in found.index


CHAT = [
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Hello Ada."},
    {"role": "user", "content": "What is my name?"},
]


class Chat(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


def test_a_conversation_is_asked_as_a_served_agent_would_be():
    rows = [{"inputs": {"messages": CHAT}, "expectations": {"expected_response": "Ada"}}]
    for serve in (False, True):
        program = oneturn.ReAct(Chat, tools=[])
        program.set_lm(lm := ScriptedLM(finish(answer="Ada")))
        if serve:
            with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
                found = oneturn.evaluate(url, rows, answered, progress=False)
        else:
            found = oneturn.evaluate(program, rows, answered, inputs=["question"], progress=False)
        assert (found.score, found.rows["error"][0]) == (1.0, None)
        assert "Hello Ada." in lm.requests[0].text


def test_a_row_without_a_program_input_is_reported():
    rows = [{"inputs": {"one": 1, "two": 2}, "expectations": {}}]
    found = oneturn.evaluate(desk(), rows, answered, progress=False)
    assert found.rows["error"][0] == "DataError: row 1 has no input 'question'; its fields are one, two"


def test_a_dataset_of_mlflow_is_read(experiment: None):
    dataset = mlflow.genai.datasets.create_dataset(name="desk", experiment_id="0")
    dataset.merge_records(to_agent_evaluation(ROWS))
    found = oneturn.evaluate(desk(), dataset, scorers.citation_format("[a-z]+"), progress=False).rows
    assert sorted(found["question"]) == sorted(row["question"] for row in ROWS)
    assert sorted(found["answer"]) == ["8 euros", "at 9"]
    assert found["id"].str.len().min() > 0


def test_our_rows_become_theirs_and_come_back():
    rows = [dspy.Example(**row).with_inputs("question") for row in ROWS]
    theirs = to_agent_evaluation(rows)
    assert theirs[0]["inputs"] == {"question": "What do two months cost?"}
    assert theirs[0]["expectations"]["expected_response"] == "8 euros"
    assert theirs[0]["expectations"]["expected_retrieved_context"] == [{"doc_uri": "docs/fees.md"}]
    back = oneturn.evaluate(desk(), theirs, scorers.tool_use(), progress=False).rows
    for name in ROWS[0]:
        assert back[name].tolist() == [row[name] for row in ROWS]
    with pytest.raises(DataError, match="row 1 has no input 'question'"):
        to_agent_evaluation([{"answer": "1"}])


class Guide(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


class Customer(BaseSimulatedUserAgent):
    """A simulated user without an LM."""

    def generate_message(self, context: Any) -> str:
        return f"Question {context.turn}?"


def test_a_conversation_simulator_asks_the_predict_function(experiment: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ConversationSimulator, "_check_goal_achieved", lambda *args, **kwargs: False)
    program = oneturn.ReAct(Guide, tools=[])
    lm = ScriptedLM(finish(answer="one"), finish(answer="two"))
    program.set_lm(lm)
    simulator = ConversationSimulator(
        test_cases=[{"goal": "return a grinder"}], max_turns=2, user_model="openai:/none", user_agent_class=Customer
    )
    ((first, second),) = simulator.simulate(scorers.predict_fn(program))
    lm.check()
    assert "Question 0?" in lm.requests[0].text
    assert all(part in lm.requests[1].text for part in ("Question 0?", "one", "Question 1?"))
    session = first.info.trace_metadata["mlflow.trace.session"]
    assert session == second.info.trace_metadata["mlflow.trace.session"]


@pytest.mark.parametrize("name", ["messages", "input"])
@pytest.mark.parametrize("question", ["query", "input"])
def test_a_conversation_reaches_the_input_of_a_question_whatever_its_name(experiment: None, name: str, question: str):
    program = oneturn.ReAct(f"{question} -> answer", tools=[])
    lm = ScriptedLM(finish(answer="one"))
    program.set_lm(lm)
    response = scorers.predict_fn(program)(**{name: [{"role": "user", "content": "Is it open?"}]})
    assert response["custom_outputs"]["answer"] == "one"
    assert f"{question}: Is it open?" in lm.requests[0].text


@oneturn.tool(approval=True)
def refund(euros: float) -> str:
    """Give money back."""
    raise AssertionError("nobody approved it")


@pytest.mark.parametrize("kind", ["program", "url"])
def test_a_run_that_ends_at_an_approval_is_scored_as_one(experiment: None, kind: str):
    def waits(gold: Any, pred: Any, trace: Any = None) -> float:
        record = scorers.run_record(pred)
        (wanted,) = record.approvals
        asked = (record.outcome, wanted["name"], wanted["arguments"], pred.answer)
        return float(asked == ("approval_required", "refund", {"euros": 4}, None))

    program = oneturn.ReAct("question -> answer", tools=[refund])
    program.set_lm(ScriptedLM(call("refund", euros=4)))
    if kind == "program":
        outputs = scorers.predict_fn(program)(question="?")
    else:
        adapter = oneturn.ResponsesAdapter(program, approvals=oneturn.Approvals("0123456789abcdef" * 2))
        with oneturn.running_server(adapter) as url:
            outputs = scorers.predict_fn(url)(question="?")
    assert [item["type"] for item in outputs["output"]] == ["mcp_approval_request"]
    feedback = scorers.as_mlflow(waits)(inputs={"question": "?"}, outputs=outputs, expectations={})
    assert feedback.value == 1.0
