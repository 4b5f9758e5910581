"""An evaluation whose rows keep failing with the same error stops."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.errors import OneTurnError
from oneturn.evaluation import ErrorLimits, EvaluationStopped


class Host:
    """What a program asks; not a part of it."""

    def __init__(self, is_down: bool):
        self.is_down = is_down


class Failing(dspy.Module):
    """Fails on the rows from ``start`` on, as long as it is broken; counts what it was asked."""

    def __init__(self, start: int, broken: bool = True):
        super().__init__()
        self.start = start
        self.asked: list[int] = []
        self.host = Host(broken)

    def forward(self, question: str) -> dspy.Prediction:
        number = int(question)
        self.asked.append(number)
        if self.host.is_down and number >= self.start:
            raise ValueError(f"no route to host {number}")
        return dspy.Prediction(answer=question)


ROWS = [{"question": str(number)} for number in range(72)]


def right(gold: Any, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == gold.question)


def evaluate(program: Any, metric: Any = right, **options: Any) -> Any:
    return oneturn.evaluate(program, ROWS, metric, inputs=["question"], progress=False, **options)


@pytest.mark.parametrize(("start", "asked", "which"), [(0, 10, "first 10"), (5, 25, "last 20")])
def test_the_same_error_stops_the_evaluation(start: int, asked: int, which: str):
    program = Failing(start)
    with pytest.raises(EvaluationStopped, match=f"the {which} rows failed with the same error") as caught:
        evaluate(program)
    assert isinstance(caught.value, OneTurnError)
    assert f"ValueError: no route to host {start}" in str(caught.value)
    assert len(program.asked) <= asked + 2, "at most two rows are submitted ahead"


IDS = {
    "uuid": "[request_id: 7f3c1f0e-4f1a-4c3b-9a52-1d2e3f405162]|[request_id: abcdefab-cafe-4bad-8fad-deadbeefcafe]",
    "hex": "trace 9f86d081884c7d65|trace 2c26b46b68ffc68f",
    "base62": "(req_011CSHoEeqs5C35K2UUqR7Fy)|(req_011CSHpJq8hXkZt4vYwRmNbA)",
    "without a digit": "request id: aBcDeFgHiJkL|request id: zYxWvUtSrQpO",
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_errors_that_differ_in_an_id_are_the_same(ids: str):
    class Overloaded(Failing):
        def forward(self, question: str) -> dspy.Prediction:
            raise ValueError(f"model overloaded {ids.split('|')[int(question) % 2]}")

    with pytest.raises(EvaluationStopped, match="first 10 rows"):
        evaluate(Overloaded(0))


@pytest.mark.parametrize("words", ["invalid: name|invalid: value", "ContextWindowExceeded|AuthenticationFailed"])
def test_errors_that_differ_in_words_are_others(words: str):
    class Various(Failing):
        def forward(self, question: str) -> dspy.Prediction:
            raise ValueError(words.split("|")[int(question) % 2])

    assert len(evaluate(Various(0)).rows) == len(ROWS)


def test_a_metric_that_raises_stops_the_evaluation_too():
    program = Failing(0, broken=False)
    with pytest.raises(EvaluationStopped, match="IndexError: list index out of range"):
        evaluate(program, lambda gold, pred, trace=None: [][0])
    assert len(program.asked) <= 12


def test_different_errors_and_raised_limits_do_not_stop_it():
    kinds = [KeyError("x"), ValueError("x")]

    def metric(gold: Any, pred: Any, trace: Any = None) -> float:
        raise kinds[int(gold.question) % 2]

    assert evaluate(Failing(0, broken=False), metric).errors() == {"KeyError": 36, "ValueError": 36}
    assert evaluate(Failing(0), max_same_errors=None).errors() == {"ValueError": 72}
    with pytest.raises(EvaluationStopped, match="first 3 rows"):
        evaluate(Failing(0), max_same_errors=ErrorLimits(3, 0))


def test_after_a_stop_only_the_failed_rows_are_run_again(tmp_path: Path):
    with pytest.raises(EvaluationStopped):
        evaluate(Failing(5), output=tmp_path / "rows.jsonl")
    repaired = Failing(5, broken=False)
    found = evaluate(repaired, output=tmp_path / "rows.jsonl")
    assert (found.score, len(found.rows)) == (1.0, 72)
    assert sorted(repaired.asked) == list(range(5, 72))


COMMAND = """
from pathlib import Path
import dspy, oneturn

ROOT = Path(__file__).parent


def program():
    return oneturn.ReAct("question -> answer", tools=[])


AGENT = oneturn.Agent(
    name="broken",
    config=oneturn.AgentConfig.read({"lm": {"model": "openai/x"}}),
    build=program,
    metric=lambda gold, pred, trace=None: 1 / 0,
    examples=lambda split: [dspy.Example(question=str(n)).with_inputs("question") for n in range(3)],
    recipes={},
    root=ROOT,
    code_paths=(),
    example_questions=("?",),
)
AGENT.__class__.lm = lambda self: oneturn.testing.ScriptedLM(*[oneturn.testing.finish(answer="x")] * 3)
"""


def test_command_with_only_failed_rows_prints_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from typer.testing import CliRunner

    import oneturn.testing
    from oneturn.cli import app

    monkeypatch.setattr(oneturn.Agent, "lm", oneturn.Agent.lm)  # restored after the agent file has replaced it
    (tmp_path / "agent.py").write_text(COMMAND)
    command = ["evaluate", "--agent", str(tmp_path / "agent.py"), "--output", str(tmp_path / "rows.jsonl")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "All 3 rows failed; there is no score." in result.output
    assert "ZeroDivisionError: division by zero" in result.output
    assert not re.search(r"\d%", result.output.partition("All 3")[2])
