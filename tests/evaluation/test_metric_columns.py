"""What a metric needs is found before the first LM call, and a file is read as the agent reads its examples."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
import pytest
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.errors import DataError
from oneturn.evaluation import rescore
from oneturn.evaluation.metric_columns import required_columns
from oneturn.testing import ScriptedLM, finish


def by_category(gold: Any, pred: Any, trace: Any = None) -> float:
    if gold.category == "sum":
        return float(pred.answer == gold.total)
    return helper(pred, gold)


def helper(pred: Any, gold: Any) -> float:
    return float(pred.answer == gold["answer"])


def helper_first(gold: Any, pred: Any, trace: Any = None) -> float:
    return helper(pred, gold)


def guarded(gold: Any, pred: Any, trace: Any = None) -> float:
    try:
        assert gold.never
    except AttributeError:
        return 0.0
    return float(hasattr(gold, "maybe") and gold.maybe == pred.answer)


class Metric:
    def __call__(self, gold: Any, pred: Any, trace: Any = None) -> float:
        return float(gold.kind == pred.kind)


def early(gold: Any, pred: Any, trace: Any = None) -> float:
    with contextlib.nullcontext():
        if not gold.answerable:
            return float(pred.answer == "")
        return float(pred.answer == gold.answer)


def strict(level: int, gold: Any, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == gold.expected) * level


def logged(metric: Any) -> Any:
    @functools.wraps(metric)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return metric(*args, **kwargs)

    return inner


def tolerant(metric: Any) -> Any:
    @functools.wraps(metric)
    def inner(*args: Any, **kwargs: Any) -> Any:
        try:
            return metric(*args, **kwargs)
        except AttributeError:
            return 0.0

    return inner


class Grader:
    def check(self, pred: Any, gold: Any) -> float:
        return float(pred.answer == gold.expected)

    def __call__(self, gold: Any, pred: Any, trace: Any = None) -> float:
        return self.check(pred, gold)


BESIDE = {"build": lambda: None, "metric": lambda gold, pred, trace=None: pred.answer == gold.only}
# fmt: off
ALIKE = [lambda gold, pred: gold.one == pred.answer, lambda gold, pred: gold.two == pred.answer]
# fmt: on


@pytest.mark.parametrize(
    ("metric", "columns"),
    [
        (by_category, {"category", "answer"}),
        (early, {"answerable", "answer"}),
        (functools.partial(strict, 1), {"expected"}),
        (logged(helper_first), {"answer"}),
        (logged(functools.partial(strict, 1)), {"expected"}),
        (tolerant(helper_first), set()),
        (Grader(), {"expected"}),
        (functools.partial(Grader().check, None), {"expected"}),
        (guarded, set()),
        (Metric(), {"kind"}),
        (len, set()),
        (lambda gold, pred, trace=None: float(gold.only == pred.answer), {"only"}),
        (BESIDE["metric"], {"only"}),
        (ALIKE[1], set()),
    ],
    ids=[
        "function",
        "early return",
        "partial",
        "decorated",
        "decorated partial",
        "decorated with try",
        "calls a method",
        "partial method",
        "guarded",
        "object",
        "builtin",
        "lambda",
        "lambda beside another",
        "lambda beside one like it",
    ],
)
def test_columns_that_a_metric_needs(metric: Any, columns: set[str]):
    assert required_columns(metric) == columns


def test_missing_column_is_found_before_the_first_lm_call(tmp_path: Path):
    program = oneturn.ReAct("question -> answer", tools=[])
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 3)
    with ScriptedLM() as lm, pytest.raises(DataError, match="needs the column 'category', and no row has it"):
        oneturn.evaluate(program, tmp_path / "rows.jsonl", by_category, lm=lm, progress=False)
    assert lm.requests == []


def test_input_with_a_default_may_be_left_out(tmp_path: Path):
    class Ask(dspy.Signature):
        question: str = dspy.InputField()
        region: str = dspy.InputField(default="EU")
        answer: str = dspy.OutputField()

    (tmp_path / "rows.jsonl").write_text('{"question": "a"}\n{"question": "b", "region": "US"}\n')
    with ScriptedLM(finish(answer="x"), finish(answer="x")) as lm:
        found = oneturn.evaluate(
            oneturn.ReAct(Ask, tools=[]), tmp_path / "rows.jsonl", lambda *_: 1.0, lm=lm, progress=False
        )
    assert found.rows["error"].isna().all()


AGENT = """
import json
from pathlib import Path
import dspy, oneturn
from oneturn.testing import ScriptedLM, finish

ROOT = Path(__file__).parent
CONFIG = oneturn.AgentConfig.read(ROOT / "config.yaml")


class Scripted(oneturn.Agent):
    def lm(self):
        return ScriptedLM(*[finish(answer="x", on="2026-01-02")] * 2)


def examples(split):
    rows = map(json.loads, (ROOT / CONFIG.data.examples / f"{split}.jsonl").read_text().splitlines())
    return [dspy.Example(**row, wanted=row["raw"].lower()).with_inputs("question") for row in rows]


AGENT = Scripted(
    name="derived",
    config=CONFIG,
    build=lambda: oneturn.ReAct("question -> answer, on: datetime.date", tools=[]),
    metric=lambda gold, pred, trace=None: float(gold.wanted == pred.answer and pred.on.year == 2026),
    examples=examples,
    recipes={},
    root=ROOT,
    code_paths=(),
    example_questions=("?",),
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "config.yaml").write_text(json.dumps({"lm": {"model": "openai/x"}, "data": {"examples": "ex"}}))
    (tmp_path / "ex").mkdir()
    (tmp_path / "ex" / "test.jsonl").write_text('{"id": 1, "question": "own", "raw": "Z"}\n')
    (tmp_path / "mine.jsonl").write_text(
        '{"id": 7, "question": "a", "raw": "X"}\n{"id": 8, "question": "b", "raw": "Y"}\n'
    )
    return tmp_path


def command(folder: Path, *words: str) -> Any:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, ["evaluate", *words, "--agent", str(folder / "agent.py")])


def test_file_in_the_form_of_the_examples_is_read_by_the_agent_s_loader(folder: Path):
    result = command(folder, "--data", str(folder / "mine.jsonl"), "--output", str(folder / "rows.jsonl"))
    assert result.exit_code == 0, result.output
    rows = pd.read_json(folder / "rows.jsonl", lines=True)
    assert (rows["id"].tolist(), rows["wanted"].tolist(), rows["score"].tolist()) == ([7, 8], ["x", "y"], [1, 0])


def test_optional_columns_do_not_change_the_form_of_a_file(folder: Path):
    (folder / "ex" / "train.jsonl").write_text('{"id": 2, "question": "b", "raw": "Z", "style": "plain"}\n')
    (folder / "ex" / "schema.json").write_text('{"properties": {"note": {}}}')
    (folder / "mine.jsonl").write_text(
        '{"id": 7, "question": "a", "raw": "X", "style": "odd"}\n{"id": 8, "question": "b", "raw": "Y", "note": "n"}\n'
    )
    result = command(folder, "--data", str(folder / "mine.jsonl"), "--output", str(folder / "rows.jsonl"))
    assert result.exit_code == 0, result.output
    assert pd.read_json(folder / "rows.jsonl", lines=True)["wanted"].tolist() == ["x", "y"]


def test_file_in_another_form_is_read_as_it_is(folder: Path):
    (folder / "other.jsonl").write_text('{"question": "a", "wanted": "x"}\n{"question": "b", "wanted": "x"}\n')
    result = command(folder, "--data", str(folder / "other.jsonl"))
    assert "100.0%" in result.output
    (folder / "other.jsonl").write_text('{"question": "a"}\n')
    missing = command(folder, "--data", str(folder / "other.jsonl"))
    assert (missing.exit_code, "needs the column 'wanted'" in missing.output) == (1, True)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_are_scored_again_without_the_lm(folder: Path, suffix: str):
    rows, again = folder / f"rows{suffix}", folder / f"again{suffix}"
    command(folder, "--data", str(folder / "mine.jsonl"), "--output", str(rows))
    text = (folder / "agent.py").read_text()
    text = text.replace("gold.wanted == pred.answer", "pred.answer == 'x'").replace(
        "[finish(answer", "0 * [finish(answer"
    )
    (folder / "agent.py").write_text(text)
    result = command(folder, "--rescore", str(rows), "--output", str(again))
    assert result.exit_code == 0, result.output
    found = oneturn.evaluation.Evaluation.read(again)
    assert found.rows["score"].tolist() == [1.0, 1.0]
    assert found.rows["lm_calls"].tolist() == [1, 1], "the usage is that of the answers"


def test_row_without_an_answer_keeps_its_error(tmp_path: Path):
    class Half(dspy.Module):
        def forward(self, question: str, on: datetime.date | None = None) -> dspy.Prediction:
            if question == "b":
                raise ValueError("no b")
            return dspy.Prediction(answer=question)

    rows, file = [{"question": "a"}, {"question": "b"}], tmp_path / "rows.jsonl"
    oneturn.evaluate(Half(), rows, lambda *_: 0.0, inputs=["question"], output=file, progress=False)
    found = rescore(file, {"new": lambda gold, pred, trace=None: float(pred.answer == gold.question)})
    assert found.rows["score"].tolist() == found.rows["new"].tolist() == [1.0, 0.0]
    assert found.errors() == {"ValueError": 1}
