"""Feedback on production traces becomes candidates, which enter a split only on request."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pydantic
import pytest
from mlflow.entities import AssessmentSource
from starlette.testclient import TestClient
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.datasets.from_traces import from_traces
from oneturn.datasets.review import accept, read_candidates, reject
from oneturn.errors import DataError
from oneturn.serving.app import application
from oneturn.testing import ScriptedLM, finish
from tests.datasets.agents import agent_with, row, rows_of
from tests.test_docs_examples import examples

ADA = AssessmentSource(source_type="HUMAN", source_id="ada")
JUDGE = AssessmentSource(source_type="LLM_JUDGE", source_id="judge")


@pytest.fixture
def agent(tmp_path: Path, traced: None) -> oneturn.Agent:
    store = {"mlflow": {"tracking_uri": mlflow.get_tracking_uri(), "experiment": tmp_path.name}}
    made = agent_with(
        tmp_path,
        config={**store, "data": {"redact": {"customer": r"K-\d+"}}},
        train=[row("train-1", "How wide is it?")],
        dev=[row("dev-1", "Who pays the return?")],
        test=[row("test-1", "What does a filter cost?")],
    )
    oneturn.config.tracking.use_tracking(made.config.mlflow)
    return made


def ask(
    agent: oneturn.Agent, question: Any, answer: str, inputs: Any = None, before: Sequence[Any] = (), **outputs: Any
) -> str:
    """Ask the agent through its adapter; return the trace id."""
    program = agent.build()
    program.set_lm(ScriptedLM(finish(answer=answer, **outputs)))
    request = {"input": [*before, {"role": "user", "content": question}], "custom_inputs": inputs}
    oneturn.ResponsesAdapter(program).predict(request)
    trace_id = mlflow.get_last_active_trace_id()
    assert trace_id is not None
    return trace_id


def candidates(agent: oneturn.Agent, name: str = "candidates.jsonl") -> list[dict[str, Any]]:
    return [dict(row) for row in read_candidates(agent.examples_folder, name)]


def test_answer_judged_right_is_the_label(agent: oneturn.Agent):
    trace = ask(agent, "Is customer K-12 at ada@example.com insured?", "yes, says bob@example.com")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=True, source=ADA)
    found = from_traces(agent)
    (made,) = candidates(agent)
    assert found.candidates == (made["id"],)
    assert made["question"] == "Is customer [customer] at [email] insured?"
    assert made["answer"] == "yes, says [email]"
    assert made["provenance"]["trace_id"] == trace
    assert (made["provenance"]["by"], made["provenance"]["said"]) == ("ada", "right")
    assert found.redacted == {"customer": 1, "email": 2}


def test_correction_is_the_label(agent: oneturn.Agent):
    trace = ask(agent, "When do you open?", "never")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value="no", source=ADA)
    mlflow.log_expectation(trace_id=trace, name="expected_response", value="at nine", source=ADA)
    from_traces(agent)
    (made,) = candidates(agent)
    assert (made["answer"], made["provenance"]["said"]) == ("at nine", "corrected")


@pytest.mark.parametrize("blank", ["", " \n", {"expected_response": ""}])
def test_an_empty_correction_is_no_label(agent: oneturn.Agent, blank: Any):
    trace = ask(agent, "When do you open?", "never")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=False, source=ADA)
    mlflow.log_expectation(trace_id=trace, name="expected_response", value=blank, source=ADA)
    found = from_traces(agent)
    assert (found.candidates, len(found.to_label)) == ((), 1)


def test_answer_judged_wrong_needs_a_label(agent: oneturn.Agent):
    trace = ask(agent, "When do you close?", "never")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=False, source=ADA, rationale="ask eve@example.com")
    found = from_traces(agent)
    assert (found.candidates, len(found.to_label)) == ((), 1)
    (made,) = candidates(agent, "to_label.jsonl")
    assert "answer" not in made
    assert made["provenance"]["note"] == "ask [email]"


def test_trace_without_human_feedback_is_ignored(agent: oneturn.Agent):
    ask(agent, "Is it loud?", "no")
    mlflow.log_feedback(trace_id=ask(agent, "Is it heavy?", "no"), name="right", value=True, source=JUDGE)
    assert from_traces(agent).candidates == ()


def test_latest_feedback_of_a_person_counts(agent: oneturn.Agent):
    trace = ask(agent, "Is it loud?", "no")
    for verdict in (True, False):
        mlflow.log_feedback(trace_id=trace, name="thumbs", value=verdict, source=ADA)
    assert len(from_traces(agent).to_label) == 1


BOB = AssessmentSource(source_type="HUMAN", source_id="bob@example.com")


def test_answer_judged_wrong_by_anyone_is_not_right(agent: oneturn.Agent):
    other_matter = ask(agent, "Is it loud?", "no")
    mlflow.log_feedback(trace_id=other_matter, name="correct", value=False, source=ADA)
    mlflow.log_feedback(trace_id=other_matter, name="polite", value=True, source=ADA)
    two_people = ask(agent, "Is it heavy?", "no")
    mlflow.log_feedback(trace_id=two_people, name="thumbs", value=False, source=BOB)
    mlflow.log_feedback(trace_id=two_people, name="thumbs", value=True, source=ADA)
    found = from_traces(agent)
    assert (found.candidates, len(found.to_label)) == ((), 2)


def test_edited_feedback_counts_as_later(agent: oneturn.Agent):
    trace = ask(agent, "When do you open?", "never")
    first = mlflow.log_expectation(trace_id=trace, name="expected_response", value="at eight", source=ADA)
    mlflow.log_expectation(trace_id=trace, name="answer", value="at ten", source=ADA)
    edited = mlflow.entities.Expectation(name="expected_response", value="at nine", source=ADA)
    mlflow.update_assessment(trace_id=trace, assessment_id=first.assessment_id, assessment=edited)
    from_traces(agent)
    assert candidates(agent)[0]["answer"] == "at nine"


@pytest.mark.parametrize("value", [1, 4.5, "a bit long"])
def test_rating_and_comment_are_skipped(agent: oneturn.Agent, value: Any):
    mlflow.log_feedback(trace_id=ask(agent, "Is it loud?", "no"), name="stars", value=value, source=ADA)
    found = from_traces(agent)
    assert found.skipped == {"the feedback is neither yes nor no, and has no expected answer": 1}


def test_right_answer_is_the_label_despite_other_expectations(agent: oneturn.Agent):
    trace = ask(agent, "When do you open?", "at nine")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=True, source=ADA)
    mlflow.log_expectation(trace_id=trace, name="expected_facts", value=["nine", "ask bob@example.com"], source=ADA)
    from_traces(agent)
    (made,) = candidates(agent)
    assert (made["answer"], made["provenance"]["said"]) == ("at nine", "right")
    assert made["provenance"]["expected"] == {"expected_facts": ["nine", "ask [email]"]}


def test_expectation_with_an_unknown_name_is_stored_in_provenance(agent: oneturn.Agent):
    trace = ask(agent, "When do you open?", "never")
    mlflow.log_expectation(trace_id=trace, name="ground_truth", value="at nine", source=BOB)
    from_traces(agent)
    (made,) = candidates(agent, "to_label.jsonl")
    assert made["provenance"]["expected"] == {"ground_truth": "at nine"}
    assert made["provenance"]["by"] == "[email]"


def with_signature(agent: oneturn.Agent, signature: Any) -> oneturn.Agent:
    return dataclasses.replace(agent, build=lambda: oneturn.ReAct(signature, tools=[]))


class Visit(pydantic.BaseModel):
    place: str


class Routed(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    day: datetime.date = dspy.InputField()
    visits: list[Visit] = dspy.InputField()
    answer: str = dspy.OutputField()
    address: dict[str, str] = dspy.OutputField()


def test_inputs_and_labels_of_any_type_are_stored(agent: oneturn.Agent):
    agent = with_signature(agent, Routed)
    inputs = {"day": "2026-11-23", "visits": [{"place": "Cork"}]}
    trace = ask(agent, "Where to?", "home", inputs, address={"town": "Cork"})
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=True, source=ADA)
    mlflow.log_expectation(trace_id=trace, name="address", value={"town": "Galway"}, source=ADA)
    (agent.examples_folder / "schema.json").unlink()
    from_traces(agent)
    (made,) = candidates(agent)
    assert made.pop("provenance")["said"] == "corrected"
    del made["id"]
    assert made == {"question": "Where to?", **inputs, "answer": "home", "address": {"town": "Galway"}}


class Talk(dspy.Signature):
    """Answer."""

    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def test_candidate_includes_the_preceding_conversation(agent: oneturn.Agent):
    agent = with_signature(agent, Talk)
    for before in ("Is it loud?", "Is it heavy?"):
        said = [{"role": "user", "content": before}, {"role": "assistant", "content": "no"}]
        trace = ask(agent, "Why?", "because", before=said)
        mlflow.log_feedback(trace_id=trace, name="thumbs", value=True, source=ADA)
    existing = ask(agent, "How wide is it?", "38 cm")  # an example, whose row has no history
    mlflow.log_feedback(trace_id=existing, name="thumbs", value=True, source=ADA)
    assert from_traces(agent).known == 1
    histories = [made["history"]["messages"] for made in candidates(agent)]
    assert sorted(message["question"] for (message,) in histories) == ["Is it heavy?", "Is it loud?"]


class Looked(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    picture: dspy.Image = dspy.InputField()
    answer: str = dspy.OutputField()


def test_question_with_an_image_is_skipped_with_the_reason(agent: oneturn.Agent):
    agent = with_signature(agent, Looked)
    image = {"type": "input_image", "image_url": "https://example.com/cup.png", "detail": "auto"}
    trace = ask(agent, [{"type": "input_text", "text": "What is it?"}, image], "a cup")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=True, source=ADA)
    assert from_traces(agent).skipped == {"the request contains an image or a file": 1}


def test_incomplete_answer_is_not_a_label(agent: oneturn.Agent):
    program = agent.build()
    program.set_lm(ScriptedLM(ValueError("gone")))
    request = {"input": [{"role": "user", "content": "When do you open?"}]}
    assert list(oneturn.ResponsesAdapter(program).predict_stream(request))[-1].type == "response.failed"
    (trace,) = mlflow.search_traces(return_type="list")
    mlflow.log_feedback(trace_id=trace.info.trace_id, name="thumbs", value=True, source=ADA)
    found = from_traces(agent)
    assert (found.candidates, len(found.to_label)) == ((), 1)


def test_corrected_answer_becomes_a_candidate(agent: oneturn.Agent):
    trace = ask(agent, "When do you open?", "never")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=False, source=ADA)
    (ident,) = from_traces(agent).to_label
    path = agent.examples_folder / "to_label.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), "category": "hard"}) + "\n")
    assert from_traces(agent).known == 1
    mlflow.log_expectation(trace_id=trace, name="expected_response", value="at nine", source=BOB)
    assert from_traces(agent).candidates == (ident,)
    (made,) = candidates(agent)
    assert (made["answer"], made["category"], made["provenance"]["said"]) == ("at nine", "hard", "corrected")
    assert not path.exists()
    again = from_traces(agent)
    assert (again.candidates, again.to_label, again.known) == ((), (), 1)


@pytest.mark.parametrize("corrected_first", [True, False])
def test_correction_wins_for_a_repeated_question(agent: oneturn.Agent, corrected_first: bool):
    one, other = ask(agent, "When do you open?", "never"), ask(agent, "When do you open", "never")
    corrected, wrong = (one, other) if corrected_first else (other, one)
    mlflow.log_feedback(trace_id=wrong, name="thumbs", value=False, source=ADA)
    mlflow.log_expectation(trace_id=corrected, name="expected_response", value="at nine", source=ADA)
    found = from_traces(agent)
    assert (len(found.candidates), found.to_label) == (1, ())
    assert candidates(agent)[0]["answer"] == "at nine"


def test_missing_experiment_is_an_error_and_not_created(agent: oneturn.Agent):
    settings = agent.config.mlflow.model_copy(update={"experiment": "typo"})
    agent = dataclasses.replace(agent, config=agent.config.model_copy(update={"mlflow": settings}))
    with pytest.raises(DataError, match="has no experiment 'typo'"):
        from_traces(agent)
    assert mlflow.get_experiment_by_name("typo") is None


def test_existing_questions_are_not_added_again(agent: oneturn.Agent):
    for question in ("When do you open?", "WHEN do you open", "What does a filter cost?"):
        mlflow.log_feedback(trace_id=ask(agent, question, "at nine"), name="thumbs", value=True, source=ADA)
    assert (len(from_traces(agent).candidates), from_traces(agent).known) == (1, 3)
    assert len(candidates(agent)) == 1


def test_handwritten_candidate_is_preserved(agent: oneturn.Agent):
    own = row("own-1", "Do you repair lamps?")
    (agent.examples_folder / "candidates.jsonl").write_text(json.dumps(own) + "\n", encoding="utf-8")
    trace = ask(agent, "When do you open?", "at nine")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=True, source=ADA)
    from_traces(agent)
    assert [found["question"] for found in candidates(agent)] == ["Do you repair lamps?", "When do you open?"]


def test_nearly_equal_question_is_marked(agent: oneturn.Agent):
    trace = ask(agent, "What does the filter cost?", "€5")
    mlflow.log_feedback(trace_id=trace, name="thumbs", value=True, source=ADA)
    found = from_traces(agent)
    assert list(found.near.values()) == ["test-1"]
    assert candidates(agent)[0]["provenance"]["near"] == "test-1"


def test_other_traces_are_skipped_with_the_reason(agent: oneturn.Agent):
    with mlflow.start_span("something else") as span:
        span.set_inputs({"x": 1})
    mlflow.log_feedback(trace_id=span.trace_id, name="thumbs", value=True, source=ADA)
    assert from_traces(agent).skipped == {"not a trace of a Responses request": 1}


@pytest.mark.parametrize("stream", [False, True])
def test_trace_of_an_http_request_is_read(agent: oneturn.Agent, stream: bool):
    program = agent.build()
    program.set_lm(ScriptedLM(finish(answer="at nine")))
    client = TestClient(application(oneturn.ResponsesAdapter(program)))
    request = {"input": [{"role": "user", "content": "When do you open?"}], "stream": stream}
    assert client.post("/responses", json=request).status_code == 200
    (trace,) = mlflow.search_traces(return_type="list")
    mlflow.log_feedback(trace_id=trace.info.trace_id, name="thumbs", value=True, source=ADA)
    from_traces(agent)
    assert [(made["question"], made["answer"]) for made in candidates(agent)] == [("When do you open?", "at nine")]


def one_candidate(agent: oneturn.Agent) -> str:
    mlflow.log_feedback(trace_id=ask(agent, "When do you open?", "at nine"), name="thumbs", value=True, source=ADA)
    return from_traces(agent).candidates[0]


def edit(agent: oneturn.Agent, **values: Any) -> None:
    path = agent.examples_folder / "candidates.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}) + "\n")


def test_a_review_goes_on_while_traces_are_read(agent: oneturn.Agent):
    for number, question in enumerate(("Is it loud?", "Is it heavy?", "When do you close?")):
        trace = ask(agent, question, "no")
        mlflow.log_feedback(trace_id=trace, name="thumbs", value=number != 1, source=ADA)
        if number == 1:
            from_traces(agent)
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id() or "")
    (first,), (second,) = candidates(agent), candidates(agent, "to_label.jsonl")

    def read_slowly() -> Iterator[Any]:
        reject(agent, first["id"])
        reject(agent, second["id"])
        yield trace

    assert len(from_traces(agent, read_slowly()).candidates) == 1
    assert [made["question"] for made in candidates(agent)] == ["When do you close?"]
    assert candidates(agent, "to_label.jsonl") == []


def test_completed_candidate_is_accepted(agent: oneturn.Agent):
    ident = one_candidate(agent)
    with pytest.raises(DataError, match=f"{ident}: 'category' is missing"):
        accept(agent, [ident])
    assert len(rows_of(agent.examples_folder, "train")) == 1
    edit(agent, category="easy", question="At what time do you open?")
    assert accept(agent, [ident]) == [ident]
    assert rows_of(agent.examples_folder, "train")[-1] == row(ident, "At what time do you open?", "at nine")
    assert not (agent.examples_folder / "candidates.jsonl").exists()
    assert from_traces(agent).candidates == ()


def test_candidates_go_to_train_or_dev_never_to_test(agent: oneturn.Agent):
    ident = one_candidate(agent)
    edit(agent, category="easy")
    before = (agent.examples_folder / "test.jsonl").read_bytes()
    with pytest.raises(DataError, match="Production examples can't be added to test"):
        accept(agent, [ident], "test")
    accept(agent, [], "dev")
    assert [found["id"] for found in rows_of(agent.examples_folder, "dev")] == ["dev-1", ident]
    assert (agent.examples_folder / "test.jsonl").read_bytes() == before


def test_candidate_refused_by_the_loader_is_not_added(agent: oneturn.Agent):
    ident = one_candidate(agent)
    edit(agent, category="easy", answer=None)
    (agent.examples_folder / "schema.json").unlink()
    before = (agent.examples_folder / "train.jsonl").read_bytes()
    with pytest.raises(DataError, match="The agent's loader rejects these examples"):
        accept(agent, [ident])
    assert (agent.examples_folder / "train.jsonl").read_bytes() == before
    assert len(candidates(agent)) == 1


def waiting(agent: oneturn.Agent, *rows: dict[str, Any]) -> Path:
    """Write candidates, as a person would; return the file."""
    path = agent.examples_folder / "candidates.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_existing_rows_are_unchanged(agent: oneturn.Agent):
    path = agent.examples_folder / "train.jsonl"
    first = json.dumps(row("train-1", "How\u2028wide\x85is it?"), ensure_ascii=False)
    before = b"\xef\xbb\xbf" + first.encode() + b"\r\n"
    path.write_bytes(before)
    waiting(agent, row("new", "Is it loud?"))
    accept(agent, ["new"])
    assert path.read_bytes().startswith(before)
    assert [found["id"] for found in rows_of(agent.examples_folder, "train")] == ["train-1", "new"]


def test_invalid_split_is_an_error_and_unchanged(agent: oneturn.Agent):
    path = agent.examples_folder / "train.jsonl"
    path.write_text("{broken\n")
    waiting(agent, row("new", "Is it loud?"))
    with pytest.raises(DataError, match=r"train\.jsonl, line 1: not JSON"):
        accept(agent, ["new"])
    assert path.read_text() == "{broken\n"


def test_candidates_with_missing_or_duplicate_ids_are_preserved(agent: oneturn.Agent):
    rows = [{"question": "Is it loud?"}, {"question": "Is it heavy?"}, row("new", "Is it new?")]
    path = waiting(agent, *rows)
    accept(agent, ["new"])
    assert [made["question"] for made in candidates(agent)] == ["Is it loud?", "Is it heavy?"]
    path = waiting(agent, row("new-2", "Is it loud?"), row("new-2", "Is it heavy?"))
    with pytest.raises(DataError, match="has 'new-2' twice: give each candidate a unique id"):
        accept(agent, ["new-2"])
    assert len(path.read_text().splitlines()) == 2


def test_unknown_id_is_an_error_with_similar_ids(agent: oneturn.Agent):
    waiting(agent, *(row(f"trace-{number:04}", f"Is it {number}?") for number in range(500)))
    with pytest.raises(DataError, match=r"has no 'trace-0042x'; available: trace-0042, ") as caught:
        accept(agent, ["trace-0042x"])
    assert len(str(caught.value)) < 300
    (agent.examples_folder / "to_label.jsonl").write_text(json.dumps(row("open", "Is it open?")) + "\n")
    with pytest.raises(DataError, match=r"'open' has no label: complete it in .*to_label\.jsonl"):
        accept(agent, ["open"])


@pytest.mark.parametrize("split", ["train", "dev"])
def test_failing_loader_leaves_the_examples_unchanged(agent: oneturn.Agent, split: str):
    def loader(split: str) -> Any:
        raise KeyError("qestion")

    (agent.examples_folder / "dev.jsonl").unlink()
    waiting(agent, row("new", "Is it loud?"))
    before = {path.name: path.read_bytes() for path in agent.examples_folder.iterdir()}
    with pytest.raises(KeyError):
        accept(dataclasses.replace(agent, examples=loader), ["new"], split)
    assert {path.name: path.read_bytes() for path in agent.examples_folder.iterdir()} == before


def test_command_line(tmp_path: Path):
    run = CliRunner().invoke
    assert "name candidates, or pass --all" in run(app, ["data", "accept"]).output
    assert "never test" in run(app, ["data", "accept", "--help"]).output
    assert "--max" in run(app, ["data", "from-traces", "--help"]).output


def test_examples_of_the_page_work(agent: oneturn.Agent):
    (page,) = examples("data.md")
    page["judged"](ask(agent, "Is it loud?", "no"), "ada", True)
    page["corrected"](ask(agent, "Is it heavy?", "no"), "ada", "yes, 12 kg")
    from_traces(agent)
    assert {found["answer"] for found in candidates(agent)} == {"no", "yes, 12 kg"}


def test_a_traced_conversation_may_have_mcp_calls(agent: oneturn.Agent):
    made = {"type": "mcp_call", "id": "mcp_1", "name": "look", "arguments": "{}", "server_label": "desk", "output": "4"}
    before = [{"role": "user", "content": "Hello"}, made, {"role": "assistant", "content": "Hello."}]
    with mlflow.start_span("served elsewhere") as span:
        request = {"input": [*before, {"role": "user", "content": "Is it open?"}]}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
        text = {"type": "output_text", "text": "Until six.", "annotations": []}
        span.set_inputs({"request": request})
        span.set_outputs({"output": [made, {**message, "content": [text]}]})
    mlflow.log_feedback(trace_id=span.trace_id, name="thumbs", value=True, source=ADA)
    assert not from_traces(agent).skipped
    (row,) = candidates(agent)
    assert (row["question"], row["answer"]) == ("Is it open?", "Until six.")
