"""The engine's recipes need no column and no metric of an agent's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from mlflow.entities import Document

import oneturn
from oneturn.compilation import recipes, with_options
from oneturn.compilation.plan import Plan
from oneturn.compilation.recipes.calling import format_recipes
from oneturn.compilation.recipes.demos import DEMOS
from oneturn.compilation.recipes.work import work_of
from oneturn.errors import ApprovalRequired, ConfigError
from oneturn.programs.react import Demonstration
from oneturn.testing import ScriptedLM, call, finish
from tests.compilation.agent import CountingLM, agent


def search(query: str) -> list[Document]:
    """Find passages."""
    return [Document(page_content=f"All about {query}.", id=query)]


class Answer(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


def program() -> oneturn.ReAct:
    return oneturn.ReAct(Answer, tools=[search], thoughts=False)


def example(number: int, **columns: Any) -> dspy.Example:
    labels = {"question": f"Q{number}?", "answer": f"A{number}", "citations": [f"p{number}"]}
    return dspy.Example(**labels, **columns).with_inputs("question")


def called(number: int, **columns: Any) -> dspy.Example:
    return example(number, expected_tool_calls=[{"name": "search", "arguments": {"query": f"p{number}"}}], **columns)


def metric(gold: Any, pred: Any, trace: Any = None) -> bool:
    return bool(pred.answer == gold.answer)


def scripted(trainset: list[dspy.Example], **options: Any) -> dspy.Module:
    return recipes.scripted(program(), trainset=trainset, metric=metric, seed=0, **options)


def test_examples_without_a_category_give_four_demos_with_their_expected_calls():
    demos = scripted([called(number) for number in range(9)]).step.demos
    assert len(demos) == DEMOS
    for demo in demos:
        (turn,) = demo["trajectory"]
        assert turn["tool_call"]["args"]["query"] == demo["question"].lower().replace("q", "p").strip("?")


def test_one_demo_of_each_category():
    demos = scripted([called(number, category="odd" if number % 2 else "even") for number in range(9)]).step.demos
    assert {int(demo["question"][1:-1]) % 2 for demo in demos} == {0, 1}
    assert len(demos) == 2


@pytest.mark.parametrize("demos", [1, 3, 9, 20])
def test_as_many_demos_as_asked_for_from_each_category_in_turn(demos: int):
    rows = [called(number, category="odd" if number % 2 else "even") for number in range(9)]
    shown = [int(demo["question"][1:-1]) % 2 for demo in scripted(rows, demos=demos).step.demos]
    assert len(shown) == min(demos, 9)
    assert abs(sum(shown[:8]) - len(shown[:8]) / 2) <= 0.5


def test_number_of_demos_below_one_is_an_error():
    with pytest.raises(ConfigError, match="demos is 0; it must be at least 1, or None for one of each category"):
        scripted([called(1)], demos=0)


def test_example_whose_calls_are_unknown_is_left_out():
    (demo,) = scripted([example(1), called(2), dspy.Example(question="Q3?").with_inputs("question")]).step.demos
    assert demo["question"] == "Q2?"


def test_no_example_that_can_be_worked_out_is_an_error():
    with pytest.raises(ConfigError, match=r"can't work out a training example: .* expected_tool_calls"):
        scripted([example(1)])


def test_program_without_steps_is_an_error():
    with pytest.raises(ConfigError, match=r"for a oneturn\.ReAct, not for a Predict"):
        recipes.scripted(dspy.Predict(Answer), trainset=[called(1)], metric=metric, seed=0)


def test_option_changes_how_examples_are_worked_out_and_keeps_the_description():
    def solve(row: dspy.Example) -> Demonstration:
        return Demonstration({"answer": row.answer, "citations": ["p"]}, [("search", {"query": "p"})])

    own = with_options(recipes.scripted, solve=solve)
    compiled = own(program(), trainset=[example(1)], valset=[], metric=metric, seed=0, threads=1)
    assert compiled.step.demos[0]["tool_call"]["args"]["citations"] == ["p"]
    assert format_recipes({"x": own}) == format_recipes({"x": recipes.scripted})
    assert work_of(own, 3, 4) == work_of(recipes.scripted, 3, 4)


def test_unknown_option_is_an_error():
    with pytest.raises(ConfigError, match="The recipe scripted has no option 'solver'; its options are solve"):
        with_options(recipes.scripted, solver=print)


def test_agent_that_declares_no_recipes_has_all(tmp_path: Path):
    config = oneturn.AgentConfig.read({})
    mine = oneturn.Agent("mine", config, program, metric)
    assert recipes.recipes_of(mine) == recipes.RECIPES
    assert recipes.recipes_of(oneturn.Agent("mine", config, program, metric, recipes={})) == {}


def curve(student: dspy.Module, lm: Any, **options: Any) -> dspy.Module:
    rows = [called(number, category="odd" if number % 2 else "even") for number in range(6)]
    arguments = {"trainset": rows, "valset": rows[:2], "metric": metric, "seed": 0, "threads": 1, "teacher": lm}
    with dspy.context(lm=lm):
        return recipes.demo_curve(student, **arguments, **options)


def counted(monkeypatch: pytest.MonkeyPatch, best: int) -> list[int]:
    """Replace the scoring of candidates: the one with ``best`` demos is right; return the numbers of demos scored."""
    scored: list[int] = []

    def score(self: Any, program: Any) -> dspy.Prediction:
        scored.append(len(program.step.demos))
        return dspy.Prediction(score=100.0 * (len(program.step.demos) == best))

    monkeypatch.setattr(dspy.Evaluate, "__call__", score)
    return scored


def test_curve_scores_each_number_of_demos_and_takes_the_best(monkeypatch: pytest.MonkeyPatch):
    scored = counted(monkeypatch, best=4)
    assert len(curve(program(), None, scripted=True).step.demos) == 4
    assert scored == [2, 4, 6]  # there are six examples for eight demos


def test_curve_takes_fewer_demos_on_a_tie(monkeypatch: pytest.MonkeyPatch):
    counted(monkeypatch, best=99)
    assert len(curve(program(), None, scripted=True, counts=(1, 3)).step.demos) == 1


def test_curve_takes_demos_of_each_category_in_turn(monkeypatch: pytest.MonkeyPatch):
    counted(monkeypatch, best=2)
    demos = curve(program(), None, scripted=True).step.demos
    assert {int(demo["question"][1:-1]) % 2 for demo in demos} == {0, 1}


def answer(number: int) -> Any:
    return finish(answer=f"A{number}", citations=[])


def test_failed_example_is_sampled_again_and_repaired_runs_come_first(monkeypatch: pytest.MonkeyPatch):
    counted(monkeypatch, best=2)
    rows = [example(number) for number in range(3)]
    order = [int(row.question[1:-1]) for row in recipes.demos.shuffled(rows, 0)]
    mistake = call("search")  # without its argument
    replies = [answer(order[0]), answer(9), mistake, answer(order[1]), answer(order[2])]
    with ScriptedLM(*replies) as lm, dspy.context(lm=lm):
        compiled = recipes.demo_curve(
            program(),
            trainset=rows,
            valset=rows,
            metric=metric,
            seed=0,
            threads=1,
            teacher=lm,
            counts=(2,),
            rounds=2,
            repairs=1,
        )
    assert [demo["question"] for demo in compiled.step.demos] == [f"Q{order[1]}?", f"Q{order[0]}?"]


def test_lm_that_is_never_right_gives_no_demos_and_a_warning(caplog: pytest.LogCaptureFixture):
    with ScriptedLM(answer(9), answer(9)) as lm:
        compiled = recipes.demos_per_question(
            program(), trainset=[example(1), example(2)], metric=metric, seed=0, teacher=lm
        )
    assert (compiled.step.demos, compiled.demo_pool) == ([], None)
    assert "answered none of the 2 training examples fully right" in caplog.text


def test_pool_has_the_worked_runs_behind_the_fixed_ones():
    rows = [called(number) for number in range(5)]
    compiled = recipes.demos_per_question(
        program(), trainset=rows, metric=metric, seed=0, teacher=None, scripted=True, k=2, fixed=1
    )
    questions = {demo["question"] for demo in compiled.demo_pool.runs}
    assert len(compiled.step.demos) == 1
    assert questions | {compiled.step.demos[0]["question"]} == {row.question for row in rows}
    assert (compiled.demo_pool.k, len(questions)) == (2, 4)
    with pytest.raises(ConfigError, match=r"for a oneturn\.ReAct, not for a Predict"):
        recipes.demos_per_question(dspy.Predict(Answer), trainset=rows, metric=metric, seed=0, teacher=None)


def test_gepa_proposes_several_candidates_per_iteration(monkeypatch: pytest.MonkeyPatch):
    settings: dict[str, Any] = {}
    monkeypatch.setattr(
        "oneturn.compilation.recipes.instructions.GEPA", lambda **options: settings.update(options) or Unchanged()
    )
    arguments = {"trainset": [], "valset": [], "metric": metric, "seed": 0, "threads": 1, "teacher": ScriptedLM()}
    recipes.gepa(program(), **arguments, parents=2, mutations=3)
    strategy = settings["gepa_kwargs"]["sampling_strategy"]
    assert (strategy.p, strategy.n) == (2, 3)
    recipes.gepa(program(), **arguments)
    assert settings["gepa_kwargs"] == {}
    with pytest.raises(ConfigError, match="at least 1 parent and 1 mutation; got 0 and 3"):
        recipes.gepa(program(), **arguments, parents=0, mutations=3)


class Unchanged:
    """An optimizer that changes nothing."""

    def compile(self, student: dspy.Module, **_: Any) -> dspy.Module:
        return student


@pytest.mark.parametrize(("model", "recipe", "size"), [
    ("local/1.5B", "gepa", "1.5"),
    ("ollama_chat/llama3.2:3b", "miprov2", "3"),
    ("openai/Qwen2.5-0.5B-Instruct", "scripted_then_gepa", "0.5"),
    ("databricks/databricks-meta-llama-3-3-70b-instruct", "gepa", None),
    ("openai/gpt-4o", "gepa", None),
    ("local/1.5B", "bootstrap", None),
])  # fmt: skip
def test_small_lm_that_would_be_its_own_teacher_gets_a_warning(
    model: str, recipe: str, size: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    parrot = agent(tmp_path, CountingLM(tmp_path, name=model))
    object.__setattr__(parrot, "recipes", recipes.RECIPES)
    warning = Plan.of(parrot, recipe).reflector_warning()
    assert (warning is None) == (size is None)
    if warning is not None:
        assert f"{model} would be its own teacher. With {size} billion parameters" in warning
    monkeypatch.setattr("oneturn.compilation.plan.build_lm", lambda config: CountingLM(tmp_path, name="large/lm"))
    taught = agent(tmp_path, CountingLM(tmp_path, name=model), teacher="large/lm")
    object.__setattr__(taught, "recipes", recipes.RECIPES)
    assert Plan.of(taught, recipe).reflector_warning() is None


def test_sets_are_screened_on_the_examples_that_tell_them_apart(monkeypatch: pytest.MonkeyPatch):
    measured: list[tuple[set[str], set[str]]] = []

    def is_telling(question: str) -> bool:
        """Whether every second program is wrong on it; all others are answered by all."""
        return int(question[1:-1]) % 2 == 0

    def score(self: Any, candidate: Any) -> dspy.Prediction:
        shown = {demo["question"] for demo in candidate.step.demos}
        asked = {row.question for row in self.devset}
        measured.append((asked, shown))
        results = [(row, None, is_telling(row.question) <= len(measured) % 2) for row in self.devset]
        return dspy.Prediction(score=100.0 * sum(right for *_, right in results), results=results)

    monkeypatch.setattr(dspy.Evaluate, "__call__", score)
    one = [called(number, category="all") for number in range(40)]
    arguments: dict[str, Any] = {"trainset": one, "valset": one[:1], "metric": metric, "seed": 0, "threads": 1}
    recipes.random_search(program(), **arguments, draws=6, screen=2)
    asked = [questions for questions, _ in measured]
    assert [len(questions) for questions in asked] == [6] * 3 + [2] * 6 + [1] * 4
    assert len(set().union(*asked[3:9])) == 2
    assert all(is_telling(question) for question in set().union(*asked[3:9]))
    assert not any(questions & shown for questions, shown in measured[:9]), "a demo would answer its own example"


def test_few_sets_are_not_screened(monkeypatch: pytest.MonkeyPatch):
    scored = counted(monkeypatch, best=1)
    rows = [called(number, category="all") for number in range(9)]
    arguments: dict[str, Any] = {"trainset": rows, "valset": rows[:1], "metric": metric, "seed": 0, "threads": 1}
    recipes.random_search(program(), **arguments, screen=2)
    assert len(scored) == 4


def test_each_set_of_a_search_has_as_many_demos_as_asked_for(monkeypatch: pytest.MonkeyPatch):
    scored = counted(monkeypatch, best=5)
    rows = [called(number, category="all") for number in range(40)]
    arguments: dict[str, Any] = {"trainset": rows, "valset": rows[:1], "metric": metric, "seed": 0, "threads": 1}
    recipes.random_search(program(), **arguments, draws=3, demos=5)
    assert scored == [5] * 3


class Scores:
    """Stands in for ``dspy.Evaluate``: scores each category by a function of the demos' categories."""

    def __init__(self, score: Callable[[str, list[str]], float]):
        self.score = score
        self.sets: list[list[str]] = []

    def __call__(self, devset: list[dspy.Example], candidate: Any) -> dspy.Prediction:
        shown = [category_of(demo["question"]) for demo in candidate.step.demos]
        self.sets.append(shown)
        results = [(row, None, self.score(row.category, shown)) for row in devset]
        return dspy.Prediction(score=100.0 * sum(score for *_, score in results) / len(results), results=results)


def category_of(question: str) -> str:
    return "abc"[int(question[1:-1]) % 3]


def searched(monkeypatch: pytest.MonkeyPatch, scores: Scores, **options: Any) -> list[str]:
    monkeypatch.setattr(dspy.Evaluate, "__call__", lambda self, candidate: scores(self.devset, candidate))
    rows = [called(number, category=category_of(f"Q{number}?")) for number in range(12)]
    arguments: dict[str, Any] = {"trainset": rows, "valset": rows[:3], "metric": metric, "seed": 0, "threads": 1}
    best = recipes.random_search(program(), **arguments, **options)
    return [category_of(demo["question"]) for demo in best.step.demos]


def test_the_best_set_gets_more_examples_of_what_it_is_weakest_in(monkeypatch: pytest.MonkeyPatch):
    needed = {"a": 1, "b": 3, "c": 1}
    scores = Scores(lambda category, shown: min(shown.count(category) / needed[category], 1))
    best = searched(monkeypatch, scores, more=5)
    assert sorted(best) == ["a", "b", "b", "b", "c"]
    assert (best[0], best[-1]) == (scores.sets[0][0], scores.sets[0][-1]), "they stand between the others"
    longer = [shown for shown in scores.sets if len(shown) > 3]
    assert [len(shown) for shown in longer] == [4, 5], "what is fully right gets no more"


def test_no_more_examples_are_tried_unless_asked_for(monkeypatch: pytest.MonkeyPatch):
    scores = Scores(lambda category, shown: shown.count(category) / 9)
    assert sorted(searched(monkeypatch, scores)) == ["a", "b", "c"]
    assert len(scores.sets) == 4


def test_search_ends_where_a_category_has_no_further_example(monkeypatch: pytest.MonkeyPatch):
    scores = Scores(lambda category, shown: shown.count("b") / 9 if category == "b" else 1)
    assert searched(monkeypatch, scores, more=9).count("b") == 4, "there are four in the training examples"


def test_an_example_that_the_metric_rejects_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    shown: list[list[str]] = []

    def score(category: str, categories: list[str]) -> float:
        return categories.count("b") / 9 if category == "b" else 1

    def noted(self: Any, candidate: Any) -> dspy.Prediction:
        shown.append([demo["question"] for demo in candidate.step.demos])
        return Scores(score)(self.devset, candidate)

    monkeypatch.setattr(dspy.Evaluate, "__call__", noted)
    rows = [called(number, category=category_of(f"Q{number}?")) for number in range(12)]
    arguments: dict[str, Any] = {"trainset": rows, "valset": rows[:3], "seed": 0, "threads": 1, "more": 1}
    recipes.random_search(program(), metric=metric, **arguments)
    drawn = {question for questions in shown[:4] for question in questions}
    (added,) = {question for question in shown[4] if category_of(question) == "b"} - drawn or {None}
    if added is None:
        pytest.fail("the draws of this seed show all examples of the category; take another seed")
    shown.clear()
    recipes.random_search(program(), metric=lambda gold, *_: gold.question != added, **arguments)
    assert added not in shown[4]
    assert sum(category_of(question) == "b" for question in shown[4]) == 2


def test_an_example_that_waits_for_a_person_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch):
    def waiting(teacher: Any, example: dspy.Example) -> bool:
        raise ApprovalRequired("search", {}, [])

    scores = Scores(lambda category, shown: 0.5)
    monkeypatch.setattr("oneturn.compilation.recipes.demo_search.can_solve", waiting)
    assert sorted(searched(monkeypatch, scores, more=1)) == ["a", "b", "c"]
