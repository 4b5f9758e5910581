"""Third-party question sets become rows in splits, and their metrics read the answer out of a sentence."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import dspy
import pytest

from benchmarks import answers, question_sets
from benchmarks.jsonl_agent import jsonl_agent
from oneturn.config import AgentConfig

SIZES = {"train": 2, "dev": 1, "test": 2}


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Stand in for the generating package: a set whose question i of seed s is the one of seed s + i."""
    requests: list[tuple[str, int, int]] = []

    def create_dataset(name: str, size: int, seed: int) -> list[dict[str, Any]]:
        requests.append((name, size, seed))
        words = [f"word {(seed + index) % 1_000_003}" for index in range(size)]
        return [{"question": f"{word}?\n", "answer": word[-1]} for word in [words[0], *words]]

    package, factory = ModuleType("package"), ModuleType("factory")
    package.create_dataset = create_dataset  # type: ignore[attr-defined]
    factory.DATASETS = {"sums": None, "letters": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, question_sets.GENERATOR, package)
    monkeypatch.setitem(sys.modules, f"{question_sets.GENERATOR}.factory", factory)
    return requests


def test_splits_have_disjoint_questions(letters: list[tuple[str, int, int]]):
    rows = question_sets.generated_rows("letters", {"train": 40, "dev": 40, "test": 120})
    assert len({row["question"] for row in rows}) == 200
    ranges = [range(seed, seed + size) for _, size, seed in letters]
    assert not any(set(one) & set(other) for one in ranges for other in ranges if one is not other)


@pytest.mark.usefixtures("letters")
def test_rows_load_as_examples_in_the_requested_splits(tmp_path: Path):
    path = tmp_path / "set.jsonl"
    rows = question_sets.generated_rows("letters", SIZES)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    agent = jsonl_agent(path, "question -> answer", [], "exact", AgentConfig())
    assert {split: len(agent.examples(split)) for split in SIZES} == SIZES
    first = agent.examples("train")[0]
    assert (first.id, first.question, first.answer) == ("letters-train-001", "word 1000000?", "0")
    assert first.options == sorted({row["answer"] for row in rows})


@pytest.mark.usefixtures("letters")
def test_mislabelled_answers_are_left_out():
    rows = question_sets.generated_rows("letters", SIZES, mislabelled=("0", "1"))
    assert "0" not in {row["answer"] for row in rows}


@pytest.mark.usefixtures("letters")
def test_unknown_set_is_an_error_that_lists_the_sets():
    with pytest.raises(SystemExit, match=r"has no set 'letter'\. It has: letters, sums"):
        question_sets.generated_rows("letter", SIZES)


def test_too_few_different_questions_are_an_error(letters: Any, monkeypatch: pytest.MonkeyPatch):
    package = sys.modules[question_sets.GENERATOR]
    monkeypatch.setattr(package, "create_dataset", lambda *_, **__: [{"question": "a?", "answer": "a"}] * 9)
    with pytest.raises(SystemExit, match="letters has 1 different questions for 2 rows of train; request fewer"):
        question_sets.generated_rows("letters", SIZES)


def test_missing_package_is_an_error_with_the_install_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, question_sets.GENERATOR, None)
    with pytest.raises(SystemExit, match=r'reasoning_gym isn\'t installed; .*: pip install "oneturn\[benchmarks\]"'):
        question_sets.generated_rows("letters", SIZES)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"bfcl_eval isn't installed; .*: pip install --no-deps bfcl-eval"):
        question_sets.leaderboard_rows("bfcl_simple", SIZES)


FUNCTION = {"name": "area.of", "parameters": {"properties": {"base": {}, "height": {}, "unit": {}, "shape": {}}}}
ACCEPTED = {"area.of": {"base": [10], "height": [5.0, 5], "unit": ["square cm", ""], "shape": [{"kind": ["flat"]}]}}


def test_leaderboard_rows_have_a_call_that_their_metric_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "data/possible_answer").mkdir(parents=True)
    file = "BFCL_v4_simple_python.json"
    ids = [f"simple_python_{number}" for number in range(5)]
    questions = [
        {"id": i, "question": [[{"role": "user", "content": f"{i}?"}]], "function": [FUNCTION]} for i in reversed(ids)
    ]
    (tmp_path / "data" / file).write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "data/possible_answer" / file).write_text(
        "\n".join(json.dumps({"id": i, "ground_truth": [ACCEPTED]}) for i in ids)
    )
    spec = ModuleSpec("bfcl_eval", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    rows = question_sets.leaderboard_rows("bfcl_simple", SIZES)
    assert [row["split"] for row in rows] == ["train", "train", "dev", "test", "test"]
    assert len({row["question"] for row in rows}) == 5
    assert rows[0]["call"] == "area.of(base=10, height=5.0, shape={'kind': 'flat'})"
    assert answers.call(dspy.Example(rows[0]), dspy.Prediction(call=f"I call `{rows[0]['call']}`."))
    with pytest.raises(SystemExit, match="bfcl_simple has 5 questions"):
        question_sets.leaderboard_rows("bfcl_simple", {"test": 6})


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("1200", True),
        ("She pays $1,200 in total.", True),
        ("3 * 400 = 1200 euros.", True),
        ("The answer is 1200 (3 boxes of 400).", True),
        ("**Answer:** 1200.0", True),
        (r"so \boxed{1200}", True),
        ("The answer is 3 * 400 = 1200", True),
        ("Answer: 3", False),
        ("1200 apples, less 20", False),
        ("12000", False),
        ("-1200", False),
        ("I don't know", False),
        ("", False),
    ],
)
def test_number_is_read_out_of_a_sentence(text: str, right: bool):
    gold = dspy.Example(answer="1200")
    assert answers.number(gold, dspy.Prediction(answer=text)) == float(right)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Mother", "mother"),
        ("Ann is Bob's mother-in-law.", "mother-in-law"),
        ("She is his mother in law", "mother-in-law"),
        ("Bob's father married Ann, so she is his mother.", "mother"),
        ("Answer: the grandmother, not the mother", "grandmother"),
        ("motherly", None),
        ("no idea", None),
    ],
)
def test_option_is_read_out_of_a_sentence(text: str, read: str | None):
    assert answers.read_option(text, ["mother", "mother-in-law", "grandmother", "father"]) == read


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("area.of(base=10, height=5, shape={'kind': 'Flat'})", True),
        ("Call:\n```python\narea.of(10, 5.0, 'Square-cm', {'kind': 'flat'})\n```", True),
        ('{"name": "area.of", "arguments": {"base": 10, "height": 5, "shape": {"kind": "flat"}}}', True),
        ('I use {"area.of": {"base": 10, "height": 5, "shape": {"kind": "flat"}}}.', True),
        ("area.of(base=10, height=6, shape={'kind': 'flat'})", False),
        ("area.of(base=10, height=5)", False),
        ("area.of(base='10', height=5, shape={'kind': 'flat'})", False),
        ("area.of(base=10, height=5, shape={'kind': 'flat'}, colour='red')", False),
        ("area.of(base=10, height=x, shape={'kind': 'flat'})", False),
        ("volume(base=10, height=5, shape={'kind': 'flat'})", False),
        ("area.of(base=10, height=5, shape={'kind': 'flat'}) or area.of(base=1, height=5, shape={})", False),
        ("10 and 5", False),
    ],
)
def test_call_is_read_out_of_a_text_and_compared_by_value(text: str, right: bool):
    gold = dspy.Example(functions=json.dumps([FUNCTION]), accepted=json.dumps(ACCEPTED), call="area.of(…)")
    assert answers.call(gold, dspy.Prediction(call=text)) == float(right)


def test_metric_gives_feedback_on_a_predictor():
    gold = dspy.Example(answer="12")
    judged = answers.number(gold, dspy.Prediction(answer="about 13"), None, "step", None)
    assert (judged.score, judged.feedback) == (0.0, "'about 13' is wrong; it should be '12'.")
    assert answers.number(gold, dspy.Prediction()) == 0.0
