"""What a deployed agent was asked comes back as rows to evaluate on, however it was answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.deployment.databricks.inference_table import read_inference_table, redact_rows
from oneturn.errors import DataError
from oneturn.testing import ScriptedLM, call, finish
from tests.databricks.query_routes import events

ITEMS = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": [{"type": "input_text", "text": "Is it open?"}]},
]
ANSWER = "Until six."


def look_up(word: str) -> str:
    """Look a word up."""
    return word


@pytest.fixture(scope="module")
def answered() -> dict[str, Any]:
    """A response of a real server, whole and as it streams."""
    program = oneturn.ReAct("question, tone: str -> answer", tools=[look_up])
    program.set_lm(ScriptedLM(*[call("look_up", word="hours"), finish(answer=ANSWER)] * 2))
    body = {"input": ITEMS, "custom_inputs": {"tone": "short"}}
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
        whole = httpx.post(f"{url}/invocations", json=body, timeout=60)
        stream = httpx.post(f"{url}/invocations", json=body | {"stream": True}, timeout=60)
    return {"request": json.dumps(body), "whole": whole.text, "stream": stream.text}


def row(answered: dict[str, Any], response: str, status: int = 200) -> dict[str, Any]:
    return {
        "databricks_request_id": "r-1",
        "request_time": pd.Timestamp("2026-11-23T12:00:00Z"),
        "status_code": status,
        "execution_duration_ms": 1500,
        "request": answered["request"],
        "response": response,
        "requester": "someone@example.com",
    }


@pytest.mark.parametrize("form", ["whole", "stream", "events"])
def test_an_answer_is_read_however_it_was_sent(answered: dict[str, Any], form: str):
    response = json.dumps(events(answered["stream"])) if form == "events" else answered[form]
    found = read_inference_table(pd.DataFrame([row(answered, response)])).to_dict("records")[0]
    assert (found["question"], found["tone"], found["answer"]) == ("Is it open?", "short", ANSWER)
    assert (found["tool_calls"], found["error"], found["seconds"]) == (["look_up"], None, 1.5)
    assert (found["request_id"], found["requester"]) == ("r-1", "someone@example.com")
    assert found["input"] == ITEMS


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ('{"error_code": "RATE_LIMIT", "message": "Too many requests."}', "Too many requests."),
        ("", "The response is empty (HTTP 500)."),
        ("null", "The response is empty (HTTP 500)."),
        ('[{"type": "response.output_text.delta", "item_id": "m", "delta": "Unt"}]', "without a terminal event"),
        ('{"output": [', "isn't stored"),
        ('data: {"type": "error", "code": "server_error", "message": "It broke."}\n\n', "It broke."),
    ],
)
def test_a_row_without_an_answer_says_why(answered: dict[str, Any], response: str, error: str):
    found = read_inference_table(pd.DataFrame([row(answered, response, 500)])).to_dict("records")[0]
    assert found["answer"] is None
    assert error in found["error"]


def test_the_rows_can_be_evaluated_on(answered: dict[str, Any], tmp_path: Path):
    table = tmp_path / "desk_payload.parquet"
    pd.DataFrame([row(answered, answered["whole"]), row(answered, "", 500)]).to_parquet(table)
    asked = tmp_path / "asked.jsonl"
    here = Path(__file__).resolve().parents[2]
    options = ["--agent", str(here / "agent.py"), "--config", str(here / "configs" / "dev.yaml")]
    result = CliRunner().invoke(app, ["data", "from-inference-table", str(table), "--output", str(asked), *options])
    assert result.exit_code == 0, result.output
    assert "someone@example.com" not in asked.read_text()
    assert "Wrote 2 rows" in result.output
    assert "1 without an answer" in result.output
    program = oneturn.ReAct("question, tone: str -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="Now until seven.")] * 2))
    evaluation = oneturn.evaluate(program, asked, lambda example, prediction: prediction.answer != example.answer)
    assert (evaluation.score, list(evaluation.rows["error"])) == (1.0, [None, None])


def test_a_request_that_is_not_kept_leaves_its_answer(answered: dict[str, Any]):
    kept = row(answered, answered["whole"]) | {"request": '{"input": ['}
    found = read_inference_table(pd.DataFrame([kept])).to_dict("records")[0]
    assert (found["question"], found["answer"]) == (None, ANSWER)


MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]}
CHAT = {"choices": [{"message": {"role": "assistant", "content": ANSWER}}]}
CHUNKS = [{"choices": [{"delta": {"content": text}}]} for text in ("Until", " six.")]
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("request_body", "response"),
    [
        ({"input": "Is it open?"}, {"output": [MESSAGE]}),
        ({"input": ITEMS, "custom_inputs": None}, {"predictions": {"output": [MESSAGE]}}),
        ({"messages": [{"role": "user", "content": "Is it open?"}]}, CHAT),
        ({"messages": [{"role": "user", "content": "Is it open?"}]}, [*CHUNKS, END]),
        ({"input": ITEMS}, [{"type": "response.output_item.done", "item": MESSAGE}]),
    ],
)
def test_other_agents_and_the_playground_are_read(request_body: dict[str, Any], response: Any):
    table = pd.DataFrame([{"request": json.dumps(request_body), "response": json.dumps(response), "status_code": 200}])
    found = read_inference_table(table).to_dict("records")[0]
    assert (found["question"], found["answer"], found["error"]) == ("Is it open?", ANSWER, None)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [MESSAGE]},
            "max_ou",
        ),
        ({"status": "failed", "error": {"code": "server_error", "message": "It broke."}, "output": []}, "It broke."),
        ({"status": "failed", "output": [MESSAGE]}, "The run ended before the answer was complete"),
        ({"output": None}, "no list of output items"),
        (CHUNKS, "The run ended before the answer was complete"),
        ({"choices": [None]}, "no list of output items"),
        ("Bad gateway", "no list of output items"),
    ],
    ids=repr,
)
def test_a_response_that_is_not_complete_is_no_answer(response: Any, error: str):
    table = pd.DataFrame([{"request": json.dumps({"input": "Is it open?"}), "response": json.dumps(response)}])
    found = read_inference_table(table).to_dict("records")[0]
    assert found["answer"] is None
    assert error in found["error"]


def test_a_run_that_ended_at_an_approval_says_so():
    output = [
        {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "150 euros"},
        {"type": "mcp_approval_request", "id": "mcpr_1", "name": "refund", "arguments": "{}", "server_label": "desk"},
    ]
    table = pd.DataFrame([{"request": '{"input": "Refund it."}', "response": json.dumps({"output": output})}])
    found = read_inference_table(table).to_dict("records")[0]
    assert (found["answer"], found["tool_calls"]) == (None, ["look_up"])
    assert found["error"] == "approval_required: refund needs a person's approval"


@pytest.mark.parametrize(
    "body",
    [{"input": 5}, {"messages": [{"role": "user", "content": 5}]}, {"input": [{"role": "user", "content": [5]}]}],
)
def test_a_malformed_request_hides_no_other_row(body: dict[str, Any]):
    rows = [
        {"request": json.dumps(body), "response": None, "status_code": "400"},
        {"request": json.dumps({"input": "Is it open?"}), "response": json.dumps({"output": [MESSAGE]})},
    ]
    found = read_inference_table(pd.DataFrame(rows)).to_dict("records")
    assert found[0]["error"] == "The response is empty (HTTP 400)."
    assert (found[1]["question"], found[1]["answer"]) == ("Is it open?", ANSWER)


def test_streams_in_a_file_of_streams_only_are_read(tmp_path: Path):
    stream = json.dumps([{"type": "response.output_item.done", "item": MESSAGE}])
    pd.DataFrame([{"request": '{"input": "Is it open?"}', "response": stream}]).to_parquet(tmp_path / "payload.parquet")
    found = read_inference_table(tmp_path / "payload.parquet").to_dict("records")[0]
    assert (found["answer"], found["error"]) == (ANSWER, None)


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: {"dataframe_records": [body]}])
def test_feedback_is_no_question(answered: dict[str, Any], tmp_path: Path, wrap: Any):
    feedback = wrap({"request_id": "r-1", "text_assessments": [{"ratings": {"answer_correct": {"value": "positive"}}}]})
    rows = [row(answered, '{"result": "ok"}') | {"request": json.dumps(feedback)}, row(answered, answered["whole"])]
    found = read_inference_table(pd.DataFrame(rows)).to_dict("records")
    assert pd.isna(found[0]["answer"])
    assert found[0]["error"] == "This row holds feedback, not a question."
    table, asked = tmp_path / "payload.parquet", tmp_path / "asked.jsonl"
    pd.DataFrame(rows).to_parquet(table)
    result = CliRunner().invoke(app, ["data", "from-inference-table", str(table), "--output", str(asked)])
    assert "Wrote 1 rows" in result.output, result.output
    assert "1 rows of feedback skipped" in result.output


def test_what_says_who_somebody_is_is_taken_out(answered: dict[str, Any]):
    request = json.dumps({"input": [{"role": "user", "content": "Mail me at ann@example.com, customer K-17"}]})
    table = pd.DataFrame([row(answered, answered["whole"]) | {"request": request}])
    rows, counts = redact_rows(read_inference_table(table), {"customer": r"K-\d+"})
    assert rows["question"][0] == "Mail me at [email], customer [customer]"
    assert rows["input"][0][0]["content"] == rows["question"][0]
    assert counts == {"email": 2, "customer": 2}
    assert "requester" not in rows


def test_an_agent_that_nobody_has_asked_has_no_rows(tmp_path: Path):
    table, output = tmp_path / "payload.parquet", tmp_path / "asked.jsonl"
    pd.DataFrame({"request": [], "response": []}).to_parquet(table)
    run = CliRunner().invoke(app, ["data", "from-inference-table", str(table), "--output", str(output)])
    assert "Wrote 0 rows" in run.output, run.output
    assert output.read_text().strip() == ""


def test_values_of_custom_inputs_are_unchanged(tmp_path: Path):
    custom = {"order": 12345678901234567, "ratio": 0.12345678901234, "answer": "CUSTOM", "error": "E42"}
    asked = [{"input": "a?", "custom_inputs": custom}, {"input": "b?"}, {"input": "c?"}]
    responses = [{"output": [MESSAGE]}] * 2 + [{"error_code": "X", "message": "No."}]
    pairs = zip(asked, responses, strict=True)
    table = pd.DataFrame([{"request": json.dumps(body), "response": json.dumps(reply)} for body, reply in pairs])
    table.to_parquet(tmp_path / "payload.parquet")
    output = tmp_path / "asked.jsonl"
    run = CliRunner().invoke(
        app, ["data", "from-inference-table", str(tmp_path / "payload.parquet"), "--output", str(output)]
    )
    assert "Wrote 3 rows" in run.output, run.output
    assert "1 without an answer" in run.output
    first, second, third = map(json.loads, output.read_text().splitlines())
    assert first.items() >= {**custom, "response_answer": ANSWER, "response_error": None}.items()
    assert (second["response_answer"], "order" in second, third["response_error"]) == (ANSWER, False, "No.")


def test_another_table_is_refused():
    with pytest.raises(DataError, match="isn't an inference table: row 1 has no input 'request'"):
        read_inference_table(pd.DataFrame([{"a": 1}]))
