"""What can be evaluated, and on what."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import mlflow
import pandas as pd
import pytest
from rich.console import Console

import oneturn
from oneturn.cli.tables import score_table
from oneturn.errors import DataError, EndpointError
from oneturn.evaluation._spark_worker import Job
from oneturn.evaluation.data_sources import build_source
from oneturn.evaluation.rescoring import rescore
from oneturn.evaluation.targets import ModelTarget
from oneturn.testing import ScriptedLM, call, finish, sections

QUESTIONS = ["one?", "two?"]
FRAME = pd.DataFrame({"question": QUESTIONS, "gold": ["1", "2"], "note": [None, "x"]})


def look_up(word: str) -> str:
    """Look a word up."""
    return f"the meaning of {word}"


def answered(gold: Any, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == gold.gold)


def short(gold: Any, pred: Any, trace: Any = None) -> Any:
    return dspy.Prediction(score=float(len(pred.answer) < 5), feedback="of some length")


def program(*script: Any) -> oneturn.ReAct:
    made = oneturn.ReAct("question -> answer", tools=[look_up])
    made.set_lm(ScriptedLM(*script))
    return made


SCRIPT = (call("look_up", word="one"), finish(answer="1"), finish(answer="two"))


def check(found: Any) -> None:
    rows = found.rows
    assert rows["question"].tolist() == QUESTIONS
    assert rows["pred_answer"].tolist() == ["1", "two"]
    assert rows["answered"].tolist() == rows["score"].tolist() == [1.0, 0.0]
    assert rows["short"].tolist() == [1.0, 1.0]
    assert rows["short_feedback"][0] == "of some length"
    (made,) = rows["run_tool_calls"][0]
    assert (made["name"], made["output"]) == ("look_up", "the meaning of one")
    assert rows["run_tool_calls"][1] == []
    assert (rows["prompt_tokens"] > 0).all()


def test_a_program_is_evaluated_on_a_table():
    found = oneturn.evaluate(program(*SCRIPT), FRAME, [answered, short], progress=False)
    check(found)
    assert found.rows["lm_calls"].tolist() == [2, 1]


def test_a_served_agent_is_evaluated_by_its_url():
    adapter = oneturn.ResponsesAdapter(program(*SCRIPT))
    with oneturn.running_server(adapter) as url:
        check(oneturn.evaluate(url, FRAME, {"answered": answered, "short": short}, progress=False))


def named(*script: Any) -> oneturn.ReAct:
    made = oneturn.ReAct("question -> reply: str, used: list[str]", tools=[])
    made.set_lm(ScriptedLM(*script))
    return made


NAMED = (finish(reply="1", used=["a"]), finish(reply="two", used=[]))


def replied(gold: Any, pred: Any, trace: Any = None) -> float:
    return float(pred.reply == gold.gold and pred.used == ["a"])


@pytest.mark.parametrize("kind", ["program", "url", "model"])
def test_scores_are_the_same_whatever_the_outputs_are_called(kind: str, tmp_path: Path, traced: None):
    if kind == "program":
        found = oneturn.evaluate(named(*NAMED), FRAME, replied, progress=False)
    elif kind == "url":
        with oneturn.running_server(oneturn.ResponsesAdapter(named(*NAMED))) as url:
            found = oneturn.evaluate(url, FRAME, replied, progress=False)
    else:
        text = MODEL.replace("SCRIPT", "NAMED").replace("import NAMED, program", "import NAMED, named")
        (tmp_path / "model.py").write_text(text.replace("program(*", "named(*"))
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(
                name="agent", python_model=str(tmp_path / "model.py"), pip_requirements=["mlflow"], input_example=None
            )
        found = oneturn.evaluate(info.model_uri, FRAME, replied, progress=False)
    assert found.rows["error"].isna().all()
    assert found.rows["score"].tolist() == [1.0, 0.0]
    outputs = {name for name in found.rows if name.startswith("pred_")} - {"pred_trajectory"}
    assert outputs == {"pred_reply", "pred_used"}


class Guide(dspy.Signature):
    """Help the customer."""

    query: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


TURNS = [
    {"role": "user", "content": "Is it open?"},
    {"role": "assistant", "content": "Until six."},
    {"role": "user", "content": "On Sundays?"},
]


@pytest.mark.parametrize("kind", ["program", "url"])
@pytest.mark.parametrize("signature", [Guide, "input -> answer"], ids=["history", "no history"])
@pytest.mark.parametrize("name", ["messages", "input"])
def test_a_conversation_is_answered_alike(kind: str, signature: Any, name: str):
    asked = oneturn.ReAct(signature, tools=[])
    lm = ScriptedLM(finish(answer="Closed."))
    asked.set_lm(lm)
    rows = [{"inputs": {name: TURNS}, "expectations": {"gold": "Closed."}}]
    if kind == "program":
        found = oneturn.evaluate(asked, rows, answered, progress=False)
    else:
        with oneturn.running_server(oneturn.ResponsesAdapter(asked)) as url:
            found = oneturn.evaluate(url, rows, answered, progress=False)
    assert (found.score, list(found.rows["error"])) == (1.0, [None])
    lm.check()
    assert ("Is it open?" in lm.requests[0].text) == (signature is Guide)
    assert "On Sundays?" in lm.requests[0].text


@pytest.mark.parametrize(
    "row", [{"query": "Now?"}, {"query": "Now?", "history": None}, dspy.Example(query="Now?").with_inputs("query")]
)
def test_a_missing_history_is_empty_as_in_a_served_request(row: Any):
    asked = oneturn.ReAct(Guide, tools=[])
    asked.set_lm(ScriptedLM(finish(answer="Yes.")))
    found = oneturn.evaluate(asked, [row], lambda gold, pred, trace=None: pred.answer == "Yes.", progress=False)
    assert (found.score, list(found.rows["error"])) == (1.0, [None])


def test_outputs_may_have_the_names_of_what_a_run_records(tmp_path: Path):
    replied = finish(tool_calls="two", sources=["a"], approvals=3)
    answering = oneturn.ReAct("question -> tool_calls: str, sources: list[str], approvals: int", tools=[look_up])
    answering.set_lm(ScriptedLM(call("look_up", word="one"), replied))

    def said(gold: Any, pred: Any, trace: Any = None) -> float:
        return float(pred.tool_calls == "two" and pred.sources == ["a"] and pred.approvals == 3)

    file = tmp_path / "rows.jsonl"
    found = oneturn.evaluate(answering, FRAME[:1], said, output=file, progress=False)
    (row,) = found.rows.to_dict("records")
    assert (row["pred_tool_calls"], row["pred_sources"], row["pred_approvals"]) == ("two", ["a"], 3)
    assert [call["output"] for call in row["run_tool_calls"]] == ["the meaning of one"]
    assert rescore(file, said).score == found.score == 1.0


def test_figures_that_a_served_agent_does_not_report_are_blank():
    with oneturn.running_server(oneturn.ResponsesAdapter(program(*SCRIPT))) as url:
        found = oneturn.evaluate(url, FRAME, answered, progress=False)
    assert found.rows["lm_calls"].isna().all()
    assert "lm_calls_per_row" not in found.summary()
    shown = io.StringIO()
    Console(file=shown, width=120).print(score_table({"served": found}))
    assert "0.00 " not in shown.getvalue()


MODEL = """
import mlflow, oneturn
from tests.evaluation.test_targets_and_sources import SCRIPT, program
mlflow.models.set_model(oneturn.ResponsesAdapter(lambda: program(*SCRIPT)))
"""


def test_a_logged_model_is_evaluated_by_its_uri(tmp_path: Path, traced: None):
    (tmp_path / "model.py").write_text(MODEL)
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name="agent", python_model=str(tmp_path / "model.py"), pip_requirements=["mlflow"], input_example=None
        )
    check(oneturn.evaluate(info.model_uri, FRAME, [answered, short], progress=False))


def test_what_is_neither_is_refused():
    with pytest.raises(DataError, match="'agent' can't be evaluated"):
        oneturn.evaluate("agent", FRAME, answered)
    with pytest.raises(DataError, match="object can't be read as rows"):
        oneturn.evaluate(program(), object(), answered)


def test_a_row_of_a_program_may_be_a_trace(traced: None):
    found = oneturn.evaluate(program(*SCRIPT), FRAME, answered, trace=True, progress=False)
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(found.rows["trace_id"][0])
    assert [span.name for span in trace.data.spans][:2] == ["run", "scripted/lm"]


WRITERS: dict[str, Any] = {
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_is_read_row_by_row(suffix: str, tmp_path: Path):
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](FRAME.assign(gold=[1, 2], number=[0.5, None]), path)
    assert [example.toDict() for example in build_source(path, ["question"]).rows()] == [
        {"question": "one?", "gold": 1, "note": None, "number": 0.5},
        {"question": "two?", "gold": 2, "note": "x", "number": None},
    ]


def test_an_mlflow_dataset_is_its_table():
    dataset = mlflow.data.from_pandas(FRAME, name="questions")  # type: ignore[attr-defined]
    assert [example.question for example in build_source(dataset, ["question"]).rows()] == QUESTIONS


def test_a_worker_takes_nan_for_what_is_missing():
    job = Job("nan", lambda: program(finish(answer="1")), {"score": answered}, ("question",), 1, {"error": "string"})
    table = pd.DataFrame({"question": ["one?", float("nan")], "gold": ["1", "2"]})
    (rows,) = job(iter([table]))
    assert rows["error"].isna().tolist() == [True, False]
    assert rows["error"].iloc[1].startswith("DataError: row 2 has no input 'question'")


def test_what_pandas_has_for_missing_values_is_none():
    days = pd.DataFrame({"question": ["one?", "two?"], "day": pd.to_datetime(["2025-01-02", None])})
    read = list(build_source(days, ["question"]).rows())
    assert [example["day"] for example in read] == [pd.Timestamp("2025-01-02"), None]
    texts = pd.DataFrame({"question": ["one?", "two?"], "note": pd.array(["a", None], dtype="string")})
    assert [example["note"] for example in build_source(texts, ["question"]).rows()] == ["a", None]


def test_lists_of_a_table_are_lists(tmp_path: Path):
    table = pd.DataFrame({"question": ["one?"], "tags": [["a", "b"]], "parts": [[{"ids": [1, 2]}]]})
    table.to_parquet(tmp_path / "x.parquet")
    (example,) = build_source(pd.read_parquet(tmp_path / "x.parquet"), ["question"]).rows()
    assert (example["tags"], example["parts"]) == (["a", "b"], [{"ids": [1, 2]}])


def test_a_row_with_an_input_of_the_program_is_no_agent_evaluation():
    rows = [{"question": "What?", "request": "T-5", "inputs": {"question": "x"}}, {"request": "Why?", "answer": "a"}]
    first, second = build_source(rows, ("question", "limit"), {"limit"}).rows()
    assert (first.question, first.request) == ("What?", "T-5")
    assert second.question == "Why?"


def test_a_line_that_is_no_row_stays_with_its_reason(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "one?", "gold": "1"}\n{broken\n[1]\n{"gold": "4"}\n')
    found = oneturn.evaluate(program(*SCRIPT[:2]), path, answered, progress=False)
    assert found.rows["score"].tolist() == [1.0, 0.0, 0.0, 0.0]
    errors = found.rows["error"].tolist()
    assert errors[1].startswith("DataError: rows.jsonl, line 2: not JSON")
    assert errors[2] == "DataError: rows.jsonl, line 3: not a JSON object: list"
    assert errors[3] == "DataError: row 4 has no input 'question'; its fields are gold"


def test_a_csv_row_that_is_no_row_stays_with_its_reason_and_ids_stay_texts(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("id,question,gold\n007,one?,1\n008,two?\n")
    found = oneturn.evaluate(program(*SCRIPT[:2]), path, lambda gold, pred: gold.gold == 1, progress=False)
    assert found.rows["id"][0] == "007"
    assert found.rows["score"].tolist() == [1.0, 0.0]
    assert found.rows["error"][1] == "DataError: rows.csv, row 3: has 2 cells, the header has 3"


def test_lists_in_the_cells_of_a_csv_are_lists_to_the_program_and_the_metric(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('tags,question,answer\n"[""a""]",[1],"[""x""]"\nbroken,two?,"[]"\n"[""b""]",{},"[""y""]"\n')
    reader = dspy.Predict("tags: list[str], question -> answer: list[str]")
    lm = ScriptedLM(*[sections(answer=["x"])] * 2)
    found = oneturn.evaluate(reader, path, lambda gold, pred: gold.answer == pred.answer, lm=lm, progress=False)
    assert found.rows["score"].tolist() == [1.0, 0.0, 0.0]
    assert found.rows["tags"].tolist()[0] == ["a"]
    assert found.rows["question"].tolist()[0] == "[1]"
    assert found.rows["error"][1].startswith("DataError: rows.csv, row 3: tags: not JSON")


def test_metrics_need_names_of_their_own():
    with pytest.raises(DataError, match="each with a unique name"):
        oneturn.evaluate(program(), FRAME, [answered, answered])


def test_the_same_rows_have_the_same_key_and_others_another(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "a"}) + "\n")
    first = build_source(path, ["question"]).key
    assert build_source(path, ["question"]).key == first
    path.write_text(json.dumps({"question": "ab"}) + "\n")
    assert build_source(path, ["question"]).key != first


class Fixed(dspy.Module):
    def __init__(self, text: str):
        super().__init__()
        self.text = text
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=self.text)


def is_right(gold: Any, pred: Any) -> float:
    return float(pred.answer == gold.answer)


def test_another_program_behind_the_same_url_is_another_evaluation(tmp_path: Path):
    rows, port = [{"question": "q", "answer": "right"}], 0
    for text in ("right", "right", "wrong"):
        adapter = oneturn.ResponsesAdapter(Fixed(text), signature="question -> answer")
        with oneturn.running_server(adapter, port=port) as url:
            port = int(url.rpartition(":")[2])
            if text == "wrong":
                with pytest.raises(DataError, match="has the rows of another evaluation"):
                    oneturn.evaluate(url, rows, is_right, output=tmp_path / "rows.jsonl", progress=False)
            fresh = text == "wrong"
            found = oneturn.evaluate(url, rows, is_right, output=tmp_path / "rows.jsonl", progress=False, fresh=fresh)
            assert found.score == float(text == "right")


def test_a_server_that_does_not_identify_its_program_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("oneturn.serving.served_agent.ServedAgent.fingerprint", None)
    adapter = oneturn.ResponsesAdapter(Fixed("right"), signature="question -> answer")
    rows = [{"question": "q", "answer": "right"}]
    with oneturn.running_server(adapter) as url:
        for _ in range(2):
            assert "doesn't say which program it serves" not in caplog.text
            oneturn.evaluate(url, rows, is_right, output=tmp_path / "rows.jsonl", progress=False)
    assert f"{url} doesn't say which program it serves" in caplog.text
    with pytest.raises(EndpointError, match="Can't reach"):
        oneturn.evaluate(url, rows, is_right, output=tmp_path / "rows.jsonl", progress=False)


def test_a_model_is_identified_whichever_alias_names_it(monkeypatch: pytest.MonkeyPatch):
    def loaded(uri: str) -> Any:
        uuid = {"models:/m/1": "one", "models:/m@champion": "one", "models:/m/2": "two"}[uri]
        return SimpleNamespace(metadata=SimpleNamespace(model_uuid=uuid))

    monkeypatch.setattr("mlflow.pyfunc.load_model", loaded)
    uris = ("models:/m/1", "models:/m@champion", "models:/m/2")
    first, champion, second = (ModelTarget(uri, types={}).key() for uri in uris)
    assert first == champion != second
