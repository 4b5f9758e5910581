"""Evaluation on Spark, in a real session: each row once, whatever fails."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
import pytest

import oneturn
from oneturn.errors import DataError
from oneturn.evaluation import approve_all
from oneturn.evaluation.spark import evaluate_into, evaluate_table
from oneturn.testing import ScriptedLM, finish

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java: install a JDK, version 17 or newer"),
    pytest.mark.xdist_group("spark"),
]

ROWS = 30


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    from pyspark.sql import SparkSession

    root = str(Path(oneturn.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", path)
        environment.setenv("PYSPARK_PYTHON", sys.executable)
        environment.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        session = (
            SparkSession.builder.master("local[2,3]")  # a task may fail twice
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.driver.memory", "1g")
            .getOrCreate()
        )
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


def table(spark: SparkSession) -> DataFrame:
    rows = [(number, f"row {number}", None if number == 4 else 1.5) for number in range(ROWS)]
    return spark.createDataFrame(rows, "id bigint, question string, weight double").repartition(2)


def capitals(folder: Path, dies: str | None = None) -> Callable[[], dspy.Module]:
    """A program that notes what it is asked, and kills its process at a row while a file of that name is there."""
    noted, fatal = str(folder / "asked.txt"), str(folder / "fatal")
    Path(fatal).touch()

    def make() -> dspy.Module:
        import os

        import dspy

        class Capitals(dspy.Module):
            def forward(self, question: str) -> Any:
                if question == dies and os.path.exists(fatal):
                    if os.path.exists(fatal + " once"):
                        os.unlink(fatal)
                    os._exit(1)
                with open(noted, "a") as file:
                    file.write(question + "\n")
                if question.endswith("3"):
                    raise ValueError("no threes")
                return dspy.Prediction(answer=question.upper(), parts=[question])

        with open(noted + ".made", "a") as file:
            file.write(f"{os.getpid()}\n")
        return Capitals()

    return make


def right() -> Callable[..., Any]:
    def metric(gold: Any, pred: Any, trace: Any = None) -> Any:
        import dspy

        return dspy.Prediction(
            score=float(pred.answer == gold.question.upper()), feedback=f"weight {gold.get('weight')}"
        )

    return metric


def collected(found: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict() for row in sorted(found.collect(), key=lambda row: row["id"])]


def asked(folder: Path) -> list[str]:
    return sorted((folder / "asked.txt").read_text().splitlines())


def test_each_row_is_answered_and_judged(spark: SparkSession, tmp_path: Path):
    found = collected(evaluate_table(capitals(tmp_path), table(spark), right(), outputs=("answer", "parts"), threads=3))
    assert [row["id"] for row in found] == list(range(ROWS))
    assert found[5] | {"seconds": 0} == {
        "id": 5,
        "question": "row 5",
        "weight": 1.5,
        "pred_answer": "ROW 5",
        "pred_parts": '["row 5"]',
        "run_tool_calls": "[]",
        "run_sources": "[]",
        "run_approvals": "[]",
        "lm_calls": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "cost": 0.0,
        "seconds": 0,
        "trace_id": None,
        "tries": 1,
        "score": 1.0,
        "feedback": "weight 1.5",
        "error": None,
    }
    assert found[4]["weight"] is None
    assert (found[13]["score"], found[13]["error"]) == (0.0, "ValueError: no threes")


def test_a_process_makes_its_program_once(spark: SparkSession, tmp_path: Path):
    collected(evaluate_table(capitals(tmp_path), table(spark).repartition(6), right()))
    made = (tmp_path / "asked.txt.made").read_text().split()
    assert len(made) == len(set(made))


def test_a_worker_that_dies_loses_nothing_and_doubles_nothing(spark: SparkSession, tmp_path: Path):
    (tmp_path / "fatal once").touch()
    found = collected(evaluate_table(capitals(tmp_path, dies="row 17"), table(spark), right()))
    assert [row["id"] for row in found] == list(range(ROWS))
    assert not (tmp_path / "fatal").exists(), "it did die"
    assert len(asked(tmp_path)) > ROWS, "its rows were answered again"


def test_a_job_that_fails_goes_on_with_the_rows_that_are_missing(spark: SparkSession, tmp_path: Path):
    program, path = capitals(tmp_path, dies="row 17"), str(tmp_path / "rows")
    ordered = table(spark).orderBy("id")
    with pytest.raises(Exception, match=r"crashed|exited|failure|Job aborted"):
        evaluate_into(path, program, ordered, right(), together=8, threads=1)
    done = {row["question"] for row in spark.read.parquet(path).collect()}
    assert 0 < len(done) < ROWS
    (tmp_path / "fatal").unlink()
    before = len(asked(tmp_path))
    found = collected(evaluate_into(path, program, ordered, right(), together=8, threads=1))
    assert [row["id"] for row in found] == list(range(ROWS))
    assert len(asked(tmp_path)) - before == ROWS - len(done), "what was written is not answered again"
    assert collected(evaluate_into(path, program, ordered, right(), together=8)) == found
    assert len(asked(tmp_path)) - before == ROWS - len(done)


def test_a_served_agent_is_asked_by_the_workers(spark: SparkSession):
    program = oneturn.ReAct("question -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="yes")] * 4))
    rows = spark.createDataFrame([(n, f"{n}?") for n in range(4)], "id int, question string").repartition(2)

    def yes(gold: Any, pred: Any, trace: Any = None) -> bool:
        return bool(pred.answer == "yes")

    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
        found = collected(evaluate_table(url, rows, {"right": yes}))
    assert [(row["error"], row["pred_answer"], row["score"], row["right"]) for row in found] == [
        (None, "yes", 1.0, 1.0)
    ] * 4
    assert json.loads(found[0]["run_tool_calls"]) == []


def test_a_policy_decides_on_the_workers(spark: SparkSession):
    def make() -> Any:
        import oneturn
        from oneturn.testing import ScriptedLM, call, finish

        def refund(euros: float) -> str:
            """Give money back."""
            return "paid"

        program = oneturn.ReAct("question -> answer", tools=[oneturn.tool(refund, approval=True)])
        program.set_lm(ScriptedLM(call("refund", euros=5), finish(answer="done")))
        return program

    def done(gold: Any, pred: Any, trace: Any = None) -> bool:
        return bool(pred.answer == "done")

    schema = "id int, question string, `paid by` struct<`first name`: string>"  # names that DDL would have to quote
    rows = spark.createDataFrame([(1, "Refund?", ("Ann",))], schema)
    (undecided,) = collected(evaluate_table(make, rows, done))
    assert (undecided["pred_answer"], undecided["score"]) == (None, 0.0)
    assert undecided["paid by"]["first name"] == "Ann"
    (approved,) = collected(evaluate_table(make, rows, done, approve=approve_all))
    assert (approved["pred_answer"], approved["score"]) == ("done", 1.0)


def test_what_cannot_be_evaluated_says_why(spark: SparkSession, tmp_path: Path):
    rows = spark.createDataFrame([(1, "a", 0.5), (1, "b", 0.5)], "id int, question string, score double")
    with pytest.raises(DataError, match="no column 'text'; it has id, question, score"):
        evaluate_table("http://127.0.0.1:1", rows, right(), inputs=("text",))
    with pytest.raises(DataError, match="a column 'score', which is a result column"):
        evaluate_table("http://127.0.0.1:1", rows, right())
    with pytest.raises(DataError, match="'id' has duplicate values"):
        evaluate_into(str(tmp_path), "http://127.0.0.1:1", rows.drop("score"), right())
    unnamed = spark.createDataFrame([(1, "a"), (None, "b")], "id int, question string")
    with pytest.raises(DataError, match="'id' has missing values"):
        evaluate_into(str(tmp_path), "http://127.0.0.1:1", unnamed, right())
