"""An agent with typed inputs and outputs scores alike in the process, over its URL, as a logged model, and rescored."""

from __future__ import annotations

import contextlib
import datetime
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dspy
import mlflow
import pydantic
import pytest

import oneturn
from oneturn.core.row_files import write_rows
from oneturn.evaluation import output_types, rescore
from oneturn.evaluation.scorers import as_mlflow, predict_fn
from oneturn.evaluation.typed_fields import with_input_types, with_label_types
from oneturn.testing import ScriptedLM, finish


class Kind(enum.Enum):
    """What it is about."""

    refund = "refund"
    order = "order"


class Item(pydantic.BaseModel):
    """An item of an order."""

    name: str
    price: float
    sent: datetime.date | None = None


class Triage(dspy.Signature):
    """Triage a question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    kind: Kind = dspy.OutputField()
    due: datetime.date = dspy.OutputField()
    parts: list[Item] = dspy.OutputField()
    first: Item | None = dspy.OutputField()
    tags: set[str] = dspy.OutputField()
    counts: dict[str, int] = dspy.OutputField()


OUTPUTS: dict[str, Any] = {
    "answer": "7",
    "kind": "refund",
    "due": "2026-01-02",
    "parts": [{"name": "pot", "price": 5, "sent": "2026-01-01"}],
    "first": None,
    "tags": ["a"],
    "counts": {"pot": 1},
}
ROWS = [{"question": "one?", "gold": "7"}, {"question": "two?", "gold": "7"}]


def program() -> oneturn.ReAct:
    """Answers one question right, and one with another kind."""
    made = oneturn.ReAct(Triage, tools=[])
    made.set_lm(ScriptedLM(finish(**OUTPUTS), finish(**{**OUTPUTS, "kind": "order"})))
    return made


def typed(gold: Any, pred: Any, trace: Any = None) -> bool:
    """A metric that reads types."""
    return bool(
        pred.answer == gold.gold
        and pred.kind is Kind.refund
        and pred.due == datetime.date(2026, 1, 2)
        and pred.parts[0].sent < pred.due
        and pred.first is None
        and pred.tags == {"a"}
        and pred.counts["pot"] == 1
    )


MODEL = """
import mlflow, oneturn
from tests.evaluation.test_typed_fields import program
mlflow.models.set_model(oneturn.ResponsesAdapter(program))
"""


@contextlib.contextmanager
def target(kind: str, folder: Path) -> Iterator[Any]:
    if kind == "program":
        yield program()
    elif kind == "url":
        with oneturn.running_server(oneturn.ResponsesAdapter(program())) as url:
            yield url
    else:
        (folder / "model.py").write_text(MODEL)
        with mlflow.start_run():
            yield mlflow.pyfunc.log_model(
                name="agent", python_model=str(folder / "model.py"), pip_requirements=["mlflow"], input_example=None
            ).model_uri


KINDS = ("program", "url", "model")


@pytest.mark.parametrize("kind", KINDS)
def test_metric_reads_the_declared_types_whatever_the_target(kind: str, tmp_path: Path, traced: None):
    with target(kind, tmp_path) as subject:
        types = output_types(program()) if kind == "url" else None  # a model brings its own
        found = oneturn.evaluate(subject, ROWS, typed, types=types, inputs=["question"], progress=False)
    assert found.rows["error"].isna().all(), found.rows["error"].tolist()
    assert found.rows["score"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("kind", ["program", "url"])
def test_recorded_answers_have_the_declared_types_again(kind: str, suffix: str, tmp_path: Path):
    output = tmp_path / f"rows{suffix}"
    with target(kind, tmp_path) as subject:
        types = output_types(program())
        oneturn.evaluate(subject, ROWS, lambda *_: 0, types=types, inputs=["question"], progress=False, output=output)
    found = rescore(output, lambda gold, pred: typed(dspy.Example(gold="7"), pred), types=types)
    assert found.rows["error"].isna().all(), found.rows["error"].tolist()
    assert found.rows["score"].tolist() == [1.0, 0.0]


def test_predictions_for_mlflow_have_the_declared_types():
    scorer = as_mlflow(typed)
    with target("url", Path()) as url:
        for predict in (predict_fn(program()), predict_fn(url, types=output_types(program()))):
            values = [
                scorer(
                    inputs={"question": row["question"]}, outputs=predict(question=row["question"]), expectations=row
                )
                for row in ROWS
            ]
            assert [feedback.value for feedback in values] == [1.0, 0.0]


def test_what_does_not_match_its_type_is_unchanged():
    outputs = {"kind": "complaint", "due": "tomorrow", "parts": "none", "answer": None, "other": "2026-01-02"}
    types = output_types(program())
    assert oneturn.evaluation.typed_fields.with_types(outputs, types) == outputs


class Delivery(dspy.Signature):
    """Say when an order arrives."""

    question: str = dspy.InputField()
    day: datetime.date = dspy.InputField()
    kind: Kind = dspy.InputField()
    picture: dspy.Image = dspy.InputField()
    first: Item = dspy.InputField()
    limit: int = dspy.InputField(default=2)
    answer: str = dspy.OutputField()


class Deliver(dspy.Module):
    """Answers with the types of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(Delivery)

    def forward(self, question: str, limit: int = 2, **inputs: Any) -> dspy.Prediction:
        return dspy.Prediction(answer=", ".join(type(value).__name__ for value in (limit, *inputs.values())))


DELIVERY: dict[str, Any] = {
    "question": "When?",
    "day": "2026-01-02",
    "kind": "order",
    "picture": {"url": "data:image/png;base64,AAAA"},
    "first": {"name": "pot", "price": 5},
}


@pytest.mark.parametrize("kind", ["program", "csv", "url"])
def test_inputs_have_their_declared_types_everywhere(kind: str, tmp_path: Path):
    data: Any = [DELIVERY, {**DELIVERY, "day": "soon"}, {**DELIVERY, "limit": 7}]
    names = [*DELIVERY, "limit"]
    if kind == "csv":
        write_rows(tmp_path / "rows.csv", data)
        data = tmp_path / "rows.csv"
    else:
        data = [dspy.Example(**row).with_inputs(*(name for name in names if name in row)) for row in data]
    with contextlib.ExitStack() as stack:
        adapter = oneturn.ResponsesAdapter(Deliver(), signature=Delivery)
        target = stack.enter_context(oneturn.running_server(adapter)) if kind == "url" else Deliver()
        rows = oneturn.evaluate(target, data, lambda *_: 1.0, inputs=names, progress=False).rows
    assert rows["error"].isna().tolist() == [True, False, True]
    assert rows["pred_answer"][0] == rows["pred_answer"][2] == "int, date, Kind, Image, Item"
    if kind != "url":
        assert rows["error"][1].startswith("DataError: The input 'day' is 'soon', and its type is datetime.date: Input")


def test_inputs_without_a_type_and_inputs_of_the_same_type_are_unchanged():
    untyped = dspy.Signature("context, question -> answer")
    assert with_input_types({"context": ["a", "b"], "other": 1}, untyped) == {"context": ["a", "b"], "other": 1}
    part = "<<CUSTOM-TYPE-START-IDENTIFIER>>[]<<CUSTOM-TYPE-END-IDENTIFIER>>"
    assert with_input_types({"picture": part, "limit": None}, Delivery) == {"picture": part}
    again = enum.Enum("Kind", {"refund": "refund"})  # the agent's module, loaded a second time
    assert with_input_types({"kind": again("refund")}, Delivery) == {"kind": Kind.refund}


LABELS: dict[str, Any] = {**OUTPUTS, "answer": 7}  # as JSON has them
LABELLED = [
    {"question": "one?", **LABELS},
    {"question": "two?", **LABELS, "kind": "complaint"},
    {"question": "three?", "kind": None},
]


def equal(gold: Any, pred: Any, trace: Any = None) -> bool:
    """A metric that compares each label with the output of its name."""
    return all(gold[name] == pred[name] for name in OUTPUTS if gold[name] is not None)


@pytest.mark.parametrize("form", ["rows", ".jsonl", ".csv", ".parquet", "examples"])
@pytest.mark.parametrize("kind", ["program", "url"])
def test_labels_with_the_name_of_an_output_have_its_type(kind: str, form: str, tmp_path: Path):
    rows = [dict.fromkeys(LABELLED[0], None) | row for row in LABELLED]
    data: Any = rows
    if form == "examples":
        data = [dspy.Example(**row).with_inputs("question") for row in rows]
    elif form != "rows":
        data = tmp_path / f"mine{form}"
        write_rows(data, rows)
    made = oneturn.ReAct(Triage, tools=[])
    made.set_lm(ScriptedLM(*[finish(**OUTPUTS)] * 3))
    with contextlib.ExitStack() as stack:
        adapter = oneturn.ResponsesAdapter(made)
        subject: Any = made if kind == "program" else stack.enter_context(oneturn.running_server(adapter))
        types = None if kind == "program" else output_types(made)
        found = oneturn.evaluate(
            subject, data, equal, types=types, inputs=["question"], progress=False, output=tmp_path / "out.jsonl"
        )
    again = rescore(tmp_path / "out.jsonl", equal, types=output_types(made))
    assert found.rows["error"].isna().tolist() == again.rows["error"].isna().tolist() == [True, True, True]
    assert found.rows["score"].tolist() == again.rows["score"].tolist() == [1.0, 0.0, 1.0]
    assert found.rows["kind"].tolist()[:2] == ["refund", "complaint"]


def test_a_label_of_another_kind_is_unchanged():
    kinds = {"verdict": True, "text": ["7", "seven"], "level": 2, "parts": {"a": 1}}
    types = {"verdict": str, "text": str | None, "level": Literal["1", "2"], "parts": list[str]}
    example = dspy.Example(question="one?", **kinds).with_inputs("question")
    assert with_label_types(example, types).toDict() == example.toDict()
    assert with_label_types(dspy.Example(text=7).with_inputs(), types).text == "7"


def test_inputs_of_a_table_are_converted():
    signature = dspy.Signature("customer: str, parts: list[int], note: str -> answer")
    rows = {"customer": 42, "parts": "[1, 2]", "note": None}
    assert with_input_types(rows, signature) == {"customer": "42", "parts": [1, 2], "note": None}


def test_accepted_texts_are_a_label_of_a_text():
    example = dspy.Example(question="one?", answer=["seven", "7"], note="x").with_inputs("question")
    assert with_label_types(example, output_types(program())).toDict() == example.toDict()
