"""The front of a compile: which candidates are points, which one is chosen, and what a second LM adds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pandas as pd
import pytest
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.compilation import Candidate, Front, Work
from oneturn.compilation.runner import PROBE
from oneturn.config import BudgetConfig
from oneturn.core.usage import Usage
from oneturn.errors import ConfigError
from oneturn.evaluation.result import Evaluation
from oneturn.programs.state import read_manifest
from tests.compilation.agent import ANSWERED, CountingLM, agent


def candidate(
    number: int, scores: list[float], tokens: float, lm: str = "a/b", cost: float | None = None, seconds: float = 1.0
) -> Candidate:
    rows = pd.DataFrame({"score": scores, "error": None, "lm_calls": 2, "seconds": seconds, "cost": cost})
    rows = rows.assign(prompt_tokens=tokens - 10, completion_tokens=10)
    evaluation = Evaluation(rows)
    return Candidate(number, dspy.Predict("a -> b"), tuple(scores), True, Usage(), 0.0, lm, number == 0, evaluation)


CHEAP = candidate(0, [0, 0, 1, 0, 0, 0, 1, 0, 0, 0], 100)
MIDDLE = candidate(1, [1, 0, 1, 1, 1, 0, 1, 1, 0, 0], 200)
BEATEN = candidate(2, [1, 0, 1, 1, 1, 0, 1, 0, 0, 0], 300)
BEST = candidate(3, [1, 0, 1, 1, 1, 1, 1, 1, 0, 0], 1000)
TIED = candidate(4, [1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 1200)
UNMEASURED = Candidate(5, dspy.Predict("a -> b"), (1.0,), False, Usage(), 0.0)
FRONT = Front.of([CHEAP, MIDDLE, BEATEN, BEST, TIED, UNMEASURED])


def test_points_are_the_candidates_that_no_other_beats():
    assert [point.number for point in FRONT.points] == [0, 1, 3]
    assert FRONT.unit == "tokens"
    equal = Front.of([candidate(1, [1.0], 50), candidate(0, [1.0], 50)])
    assert [point.number for point in equal.points] == [0]


@pytest.mark.parametrize(("prefer", "result", "number"), [
    ("quality", None, 3),
    ("quality", 4, 4),  # the recipe's own result, as good as the best
    ("quality", 2, 3),
    ("cost", None, 1),  # 70% and 60% of ten questions can't be told apart; 20% can
    ("balanced", None, 1),
    (2, None, 2),
])  # fmt: skip
def test_preference_chooses(prefer: Any, result: int | None, number: int):
    assert FRONT.choose(prefer, result).number == number


def test_a_result_that_the_recipe_has_measured_is_no_second_candidate(tmp_path: Path):
    @oneturn.recipe(lambda train, dev: Work(runs=(dev, dev), prompt_growth=(1, 2)))
    def one(student: Any, *, valset: Any, metric: Any) -> Any:
        """Use it in tests: a program that the recipe measures itself."""
        program = student.deepcopy()
        program.step.demos = [dspy.Example(question="1", answer="1")]
        dspy.Evaluate(devset=valset, metric=metric)(program)
        return program

    parrot = agent(tmp_path, CountingLM(tmp_path, right=10), recipe="one")
    done = oneturn.compile(replace(parrot, recipes={"one": one}))
    assert [each.number for each in done.candidates] == [0, 1, 2]
    assert done.kept == 1


def test_unknown_number_is_an_error_that_lists_the_candidates():
    with pytest.raises(ConfigError, match="no measured candidate 5; the candidates are 0, 1, 2, 3, 4"):
        FRONT.choose(5)


def test_table_has_paired_differences_to_the_best():
    table = FRONT.table().set_index("candidate")
    assert table.loc[0, "to best"] == pytest.approx(-50)
    assert table.loc[0, "to best, high"] < 0 <= table.loc[1, "to best, high"]
    assert (table.loc[3, "to best"], table.loc[3, "tokens a question"]) == (0, 1000)
    assert "US dollars a question" not in table


def test_cost_is_dollars_if_known_and_seconds_between_lms():
    priced = [candidate(0, [1.0], 100, "a/b", cost=0.02), candidate(1, [1.0], 200, "c/d", cost=0.01)]
    assert (Front.of(priced).unit, [point.number for point in Front.of(priced).points]) == ("US dollars", [1])
    unpriced = [candidate(0, [1.0], 100, "a/b", seconds=3), candidate(1, [1.0], 200, "c/d", seconds=2)]
    assert (Front.of(unpriced).unit, [point.number for point in Front.of(unpriced).points]) == ("seconds", [1])


def lines(folder: Path) -> int:
    return len((folder / ANSWERED).read_text().splitlines())


def test_compile_has_the_usage_of_each_candidate_without_further_lm_calls(tmp_path: Path):
    done = oneturn.compile(agent(tmp_path))
    assert lines(tmp_path) == done.manifest.spend["lm_calls"]
    full = [each for each in done.candidates if each.full]
    assert len(full) > 2
    assert all(each.evaluation is not None and each.per_question("tokens") > 0 for each in full)
    assert [list(each.evaluation.rows["score"]) for each in full] == [list(each.scores) for each in full]
    assert done.manifest.front == done.front.to_dicts()
    assert done.after.score == max(each.score for each in full)
    table = done.table()
    assert list(table.loc[table["compiled"] == "*", "candidate"]) == [done.kept]


def test_other_preference_replays_the_compile(tmp_path: Path):
    oneturn.compile(agent(tmp_path))
    before = lines(tmp_path)
    first = oneturn.compile(agent(tmp_path), prefer=0)
    assert lines(tmp_path) == before
    assert first.kept == 0
    assert first.program.step.demos == []
    assert read_manifest(tmp_path / "compiled.json").scores["before"] == first.manifest.scores["after"]


def test_second_lm_is_compiled_for_and_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = CountingLM(tmp_path, right=10, name="counting/other")
    monkeypatch.setattr("oneturn.compilation.plan.build_lm", lambda config: other)
    done = oneturn.compile(agent(tmp_path, lms=["counting/other"]))
    assert {each.lm for each in done.candidates} == {"counting/lm", "counting/other"}
    assert [each.lm for each in done.candidates if each.uncompiled] == ["counting/lm", "counting/other"]
    assert (done.manifest.lm, done.after.score, done.before.score) == ("counting/other", 1.0, 1.0)
    assert done.front.unit == "seconds"
    assert set(done.table()["LM"]) == {"counting/lm", "counting/other"}


def test_a_budget_that_ends_at_the_second_lm_keeps_what_the_first_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    alone, both = tmp_path / "alone", tmp_path / "both"
    alone.mkdir()
    both.mkdir()
    first = oneturn.compile(agent(alone))
    spent = len((alone / ANSWERED).read_text().splitlines())
    other = CountingLM(both, right=10, name="counting/other")
    monkeypatch.setattr("oneturn.compilation.plan.build_lm", lambda config: other)
    limit = BudgetConfig(lm_calls=spent + PROBE + 1)  # the estimate probes the second LM, too
    done = oneturn.compile(agent(both, lms=["counting/other"]), budget=limit)
    assert done.stopped is not None
    assert (done.manifest.lm, done.after.score) == ("counting/lm", first.after.score)


def test_same_lm_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("oneturn.compilation.plan.build_lm", lambda config: CountingLM(tmp_path))
    with pytest.raises(ConfigError, match=r"compile\.lms: counting/lm occurs twice"):
        oneturn.compile(agent(tmp_path, lms=["counting/lm"]))


def test_front_plot_has_the_points_and_a_ring(tmp_path: Path):
    done = oneturn.compile(agent(tmp_path))
    axes = done.plot_front().axes[0]
    assert list(axes.lines[0].get_xdata()) == [done.front.cost(point) for point in done.front.points]
    assert axes.lines[-1].get_xdata()[0] == done.front.cost(done.candidates[done.kept])
    assert axes.get_xlabel() == "" or axes.xaxis.label.get_text() == "tokens a question"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    tracking = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "front"}
    monkeypatch.setattr("oneturn.cli.compile.load", lambda file, config: agent(tmp_path, mlflow=tracking))
    return lambda *options: CliRunner().invoke(app, ["compile", *options])


def test_command_prints_and_plots_the_front(command: Any, tmp_path: Path):
    result = command("--prefer", "0", "--plot", str(tmp_path / "front.svg"))
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "front score 95% interval a question" in words
    assert "uncompiled, compiled" in words
    assert "It was compiled for" not in words
    assert (tmp_path / "front.svg").read_text().startswith("<?xml")
    assert json.loads((tmp_path / "compiled.json").read_text())["manifest"]["front"]


def test_wrong_options_are_errors_before_the_compile(command: Any, tmp_path: Path):
    assert "'fast' is neither quality, balanced or cost" in " ".join(command("--prefer", "fast").output.split())
    assert command("--plot", str(tmp_path / "front.doc")).exit_code != 0
    missing = command("--plot", str(tmp_path / "missing" / "front.svg"))
    assert "There is no folder" in missing.output
    assert missing.exit_code == 1
    assert not (tmp_path / ANSWERED).exists()
