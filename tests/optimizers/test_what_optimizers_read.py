"""What DSPy's optimizers see of a oneturn.ReAct run, and what they compile from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.compilation import recipes
from oneturn.compilation.recipes import instructions
from oneturn.compilation.recipes.calling import call
from tests.optimizers.clever_lm import CleverLM, digit, finished, varying

WORDS = ["ash", "beech", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew"]
RULE = "Look each word up."
TEXTS = {"instructions": RULE, "module_advice": json.dumps({"step": RULE})}


def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} is a tree of {len(word)} letters"


def program() -> oneturn.ReAct:
    return oneturn.ReAct("question -> answer", tools=[look_up], thoughts=False)


def examples() -> list[dspy.Example]:
    return [
        dspy.Example(question=word, answer=f"{len(word)} letters", category="all").with_inputs("question")
        for word in WORDS
    ]


def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    score = float(pred.get("answer") == gold.answer)
    if pred_name is None:
        return score
    return dspy.Prediction(score=score, feedback=pred.get("error") or f"It should be {gold.answer}.")


def step(prompt: str, fields: list[str], time: int = 0) -> str:
    """Look the word up in about half of the cases, and always if the instructions say so; otherwise guess."""
    last = prompt.rpartition("\n")[2]
    if not last.startswith("question: "):
        return finished(last.rpartition("a tree of ")[2])
    if RULE not in prompt and digit(f"{prompt}{time}") < 5:
        return finished("a guess")
    return json.dumps({"tool_call": {"name": "look_up", "args": {"word": last.removeprefix("question: ")}}})


def optimized(
    recipe: Any, lm: CleverLM, student: dspy.Module | None = None, metric: Any = metric, threads: int = 1
) -> dspy.Module:
    arguments = {"trainset": examples(), "valset": examples(), "metric": metric, "seed": 0, "threads": threads}
    arguments["teacher"] = lm
    with dspy.context(lm=lm):
        return call(recipe, student or program(), arguments)


@pytest.mark.parametrize("recipe", [recipes.simba, recipes.gepa], ids=["simba", "gepa"])
def test_reflection_prompt_has_tool_arguments_and_results(recipe: Any):
    lm = CleverLM(varying(step), TEXTS)
    compiled = optimized(recipe, lm)
    prompts = "\n".join(lm.reflections)
    assert '"word": "' in prompts
    assert "is a tree of" in prompts
    assert RULE in compiled.step.signature.instructions


@pytest.mark.parametrize("recipe", [recipes.bootstrap, recipes.simba], ids=["bootstrap", "simba"])
def test_demo_is_a_whole_run_as_plain_data(recipe: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(instructions, "SIMBA_STEPS", 4)
    idle = {"instructions": "Be kind.", "module_advice": json.dumps({"step": "Be kind."})}
    best = optimized(recipe, CleverLM(varying(step), idle))
    candidates = [candidate["program"] for candidate in getattr(best, "candidate_programs", [])] or [best]
    assert any(candidate.step.demos for candidate in candidates)
    for candidate in candidates:
        for demo in candidate.step.demos:
            (turn,) = demo["trajectory"]
            assert turn["tool_call"] == {"name": "look_up", "args": {"word": demo["question"]}}
            assert demo["tool_call"]["name"] == "finish"
        loaded = program()
        loaded.load_state(json.loads(json.dumps(candidate.dump_state())))
        assert loaded.shared_messages() == candidate.shared_messages()


def test_gepa_prompt_has_the_tools_and_asks_not_to_repeat_them():
    lm = CleverLM(step, TEXTS)
    optimized(recipes.gepa, lm)
    assert "- look_up(word: string): Look a word up." in lm.reflections[0]
    assert "Don't repeat it." in lm.reflections[0]


def test_gepa_learns_from_runs_that_fail():
    def counting(prompt: str, fields: list[str]) -> str:
        reply = step(prompt, fields) if RULE in prompt else finished("a guess")
        return reply.replace('"answer"', '"letters"').replace(" letters", "")

    def right(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        return metric(gold, dspy.Prediction(**{**pred, "answer": f"{pred.get('letters')} letters"}), trace, pred_name)

    student = oneturn.ReAct("question -> letters: int", tools=[look_up], thoughts=False)
    lm = CleverLM(counting, TEXTS)
    compiled = optimized(recipes.gepa, lm, student, right)
    assert compiled.step.signature.instructions == RULE
    assert "letters: Input should be a valid integer" in lm.reflections[0]
    with dspy.context(lm=lm), pytest.raises(oneturn.OneTurnError):  # outside the optimizer it raises
        student(question="ash")


BOOTSTRAPPING = [recipes.bootstrap, recipes.bootstrap_random_search, recipes.miprov2]


class FailingAgent(oneturn.Agent):
    """An agent whose runs all fail. Unless its name is "writing", its LM gives optimizers unreadable replies."""

    def lm(self) -> dspy.BaseLM:
        """Return an LM that fills a field that the signature doesn't have."""
        return CleverLM(lambda prompt, fields: finished("a guess"), TEXTS if self.name == "writing" else {})


def failing(folder: Path, name: str) -> oneturn.Agent:
    return FailingAgent(
        name=name,
        config=oneturn.AgentConfig.read({"compiled": "compiled.json"}),
        build=lambda: oneturn.ReAct("question -> letters: int", tools=[look_up], thoughts=False),
        metric=metric,
        examples=lambda split: [example.copy(letters=len(example.question)) for example in examples()],
        root=folder,
        code_paths=(),
        example_questions=(),
    )


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_compile_completes_if_all_runs_fail(recipe: str, tmp_path: Path):
    done = oneturn.compile(failing(tmp_path, "writing"), recipe=recipe)
    assert done.after.rows["error"].notna().all()


def test_unreadable_reply_of_the_teacher_is_an_error(tmp_path: Path):
    message = r"'miprov2' failed on a reply of clever/lm \(AdapterParseError: .*Use a stronger compile.teacher, "
    with pytest.raises(oneturn.OneTurnError, match=message):
        oneturn.compile(failing(tmp_path, "unreadable"), recipe="miprov2")
    oneturn.compile(failing(tmp_path, "unreadable"), recipe="gepa")
    oneturn.compile(failing(tmp_path, "unreadable"), recipe="simba")


@pytest.mark.parametrize("recipe", BOOTSTRAPPING, ids=lambda recipe: recipe.__name__)
def test_wrong_run_is_no_demo_if_the_metric_returns_a_prediction(recipe: Any):
    def with_feedback(gold: Any, pred: Any, trace: Any = None) -> dspy.Prediction:
        return dspy.Prediction(score=metric(gold, pred), feedback="")

    compiled = optimized(recipe, CleverLM(step, TEXTS), metric=with_feedback)
    answers = {example.question: example.answer for example in examples()}
    assert compiled.step.demos
    assert all(demo["tool_call"]["args"]["answer"] == answers[demo["question"]] for demo in compiled.step.demos)


def test_gepa_accepts_a_metric_without_feedback():
    lm = CleverLM(step, TEXTS)
    compiled = optimized(recipes.gepa, lm, metric=lambda gold, pred: float(pred.get("answer") == gold.answer))
    assert compiled.step.signature.instructions == RULE
    assert "This trajectory got a score of 0.0." in lm.reflections[0]


@pytest.mark.parametrize("recipe", [recipes.miprov2, recipes.simba, recipes.gepa], ids=lambda recipe: recipe.__name__)
def test_instructions_can_be_longer_than_a_step(recipe: Any):
    lm = CleverLM(varying(step), TEXTS)
    lm.kwargs["max_tokens"] = 160
    optimized(recipe, lm)
    assert lm.reply_limit == instructions.LONG_REPLY


def test_miprov2_prompt_has_runs_and_no_source_code():
    lm = CleverLM(step, TEXTS)
    optimized(recipes.miprov2, lm)
    assert any("is a tree of" in prompt for prompt in lm.reflections)
    assert not any("def forward" in prompt for prompt in lm.reflections)


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_threads_do_not_change_the_program(recipe: str):
    one, two = (optimized(recipes.RECIPES[recipe], CleverLM(step, TEXTS), threads=threads) for threads in (1, 2))
    assert one.dump_state() == two.dump_state()
