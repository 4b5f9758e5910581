"""Each recipe works on oneturn.ReAct and on DSPy's modules: it ends, is repeatable, and its program is saved."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import oneturn
from oneturn.compilation import Compilation, chain
from oneturn.compilation.recipes import RECIPES
from oneturn.compilation.recipes.calling import format_recipes
from oneturn.compilation.recipes.demos import DEMOS
from oneturn.config import BudgetConfig
from oneturn.errors import ConfigError
from tests.optimizers.clever_agent import BETTER, GENERIC, LMS, PROGRAMS, TEXTS, agent, step
from tests.optimizers.clever_lm import CleverLM, finished, varying


def compiled(folder: Path, program: str, recipe: str) -> tuple[Compilation, dict[str, Any]]:
    done = oneturn.compile(agent(folder, program), recipe=recipe)
    return done, json.loads(done.path.read_text())["state"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("recipe", [*GENERIC, "two"])
def test_recipe_compiles_and_saves_its_program(recipe: str, program: str, tmp_path: Path):
    done, state = compiled(tmp_path / "a", program, recipe)
    estimate = done.manifest.estimate
    if recipe not in ("labelled", "bootstrap"):  # the others evaluate the uncompiled program too
        assert done.after.score >= done.before.score
    assert estimate is not None
    assert done.manifest.spend["lm_calls"] <= estimate["lm_calls"][1]
    loaded = agent(tmp_path / "a", program).program()
    assert loaded.dump_state() == done.program.dump_state()
    _, again = compiled(tmp_path / "b", program, recipe)
    assert again == state, "the same seed gives the same program"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("recipe", ["miprov2", "gepa", "two"])
def test_recipe_that_rewrites_instructions_selects_the_better_ones(recipe: str, program: str, tmp_path: Path):
    done, _ = compiled(tmp_path, program, recipe)
    assert done.after.score == 1.0
    prompt = LMS[tmp_path].steps[-1]
    assert BETTER in prompt
    if program == "oneturn.ReAct":
        assert prompt.count("look_up") == 1, "the program lists the tools once"


def test_reflection_prompt_has_question_steps_and_feedback(tmp_path: Path):
    compiled(tmp_path, "oneturn.ReAct", "gepa")
    prompt = LMS[tmp_path].reflections[0]
    assert "train-" in prompt
    assert "It should be train-" in prompt
    assert "finish" in prompt


def test_configured_teacher_generates_the_demos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    teacher = CleverLM(lambda prompt, fields: finished(re.findall(r"question: (\S+)", prompt)[-1]), TEXTS)
    monkeypatch.setattr("oneturn.compilation.plan.build_lm", lambda config: teacher)
    taught = agent(tmp_path, "oneturn.ReAct")
    settings = taught.config.compile.model_copy(update={"teacher": oneturn.config.LMConfig(model="better/lm")})
    object.__setattr__(taught, "config", taught.config.model_copy(update={"compile": settings}))
    done = oneturn.compile(taught, recipe="bootstrap")
    assert len(teacher.steps) == DEMOS, "the teacher is right each time"
    compiled: Any = done.candidates[-1].program  # the LM of the test answers worse with demos, so it isn't kept
    assert len(compiled.step.demos) == DEMOS


def test_custom_recipe_gets_the_parameters_it_declares(tmp_path: Path):
    def mine(student: Any, *, trainset: Any, seed: int) -> Any:
        student.step.signature = student.step.signature.with_instructions(f"{len(trainset)} examples, seed {seed}")
        return student

    own = agent(tmp_path, "oneturn.ReAct")
    object.__setattr__(own, "recipes", {"mine": mine})
    done = oneturn.compile(own, recipe="mine")
    assert done.program.step.signature.instructions == "12 examples, seed 0"


def forgetful(student: Any) -> None:
    student.deepcopy()


def wanting(student: Any, *, train: Any, rounds: int = 3) -> Any:
    return student


def keeping_all(student: Any, **given: Any) -> Any:
    return student if set(given) == {"trainset", "valset", "metric", "seed", "threads", "teacher"} else None


@pytest.mark.parametrize(
    ("recipe", "calls", "message"),
    [
        (wanting, 0, "The recipe wanting requires train. Besides the program, a recipe may take trainset, valset, "),
        (forgetful, 12, "The recipe forgetful returned None: it must return the compiled program."),
        (chain(forgetful, keeping_all), 12, "The recipe forgetful returned None"),
    ],
)
def test_invalid_custom_recipe_is_an_error(recipe: Any, calls: int, message: str, tmp_path: Path):
    own = agent(tmp_path, "oneturn.ReAct")
    object.__setattr__(own, "recipes", {"mine": recipe})
    with pytest.raises(ConfigError, match=re.escape(message)):
        oneturn.compile(own, recipe="mine")
    assert len(LMS[tmp_path].prompts) == calls


def test_each_recipe_says_when_to_use_it():
    lines = format_recipes(RECIPES).splitlines()
    assert len(lines) == len(RECIPES)
    assert all(line.count("Use it ") == 1 for line in lines)


@pytest.mark.parametrize("calls", [14, 45])
@pytest.mark.parametrize("recipe", [*GENERIC, "two"])
def test_recipe_stops_at_the_limit_and_resumes_with_a_higher_one(recipe: str, calls: int, tmp_path: Path):
    (tmp_path / "whole").mkdir()
    whole, state = compiled(tmp_path / "whole", "oneturn.ReAct", recipe)
    needed = len(LMS[tmp_path / "whole"].prompts)
    stopped = oneturn.compile(
        agent(tmp_path / "capped", "oneturn.ReAct"), recipe=recipe, budget=BudgetConfig(lm_calls=calls)
    )
    used = len(LMS[tmp_path / "capped"].prompts)
    assert used == min(calls, needed)
    assert stopped.stopped == (None if needed <= calls else f"{calls} LM calls")
    assert stopped.after.score >= stopped.before.score or stopped.stopped is None
    resumed, same = compiled(tmp_path / "capped", "oneturn.ReAct", recipe)
    assert same == state
    assert used + len(LMS[tmp_path / "capped"].prompts) == needed
    assert resumed.after.score == whole.after.score


@pytest.mark.parametrize("recipe", ["miprov2", "simba", "gepa"])
def test_best_candidate_before_the_limit_is_saved(recipe: str, tmp_path: Path):
    whole = oneturn.compile(agent(tmp_path / "whole", "oneturn.ReAct", varying(step)), recipe=recipe)
    full = [candidate for candidate in whole.candidates if candidate.full]
    best = max(full, key=lambda candidate: candidate.score)
    assert best.number > 0, "the recipe improved the program"
    limit = BudgetConfig(lm_calls=best.spent.lm_calls + 1)
    capped = agent(tmp_path / "capped", "oneturn.ReAct", varying(step))
    stopped = oneturn.compile(capped, recipe=recipe, budget=limit)
    assert stopped.program.dump_state() == best.program.dump_state()
    assert stopped.after.score == best.score
