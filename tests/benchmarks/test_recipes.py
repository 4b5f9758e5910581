"""The recipes benchmark on a JSONL file, from the command line to the table."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Request, Response, TextPart, Usage

import oneturn
from benchmarks import answers, recipes
from benchmarks.jsonl_agent import jsonl_agent
from benchmarks.question_sets import QuestionSet
from oneturn.compilation import Work
from oneturn.config import AgentConfig
from oneturn.errors import DataError

SAMPLES = Path(recipes.__file__).parent / "samples"


class SampleEngine:
    """An engine that answers from the sample file: every question with a demo in the prompt, else about half."""

    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, path: Path):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        self._answers = {row["question"]: row["answer"] for row in rows}

    def complete(self, request: Request) -> Response:
        texts = [part.text for message in request.messages for part in message.parts]
        question = re.findall(r"question: (.*)", texts[-1])[0]
        has_demo = len(texts) > 2
        answer = self._answers[question] if has_demo or len(question) % 2 else "I don't know"
        text = json.dumps({"tool_call": {"name": "finish", "args": {"answer": answer}}})
        usage = Usage(input_tokens=sum(map(len, texts)), output_tokens=len(text))
        return Response(None, request.model, Message.assistant(TextPart(text)), "stop", usage)

    def stream(self, request: Request) -> Iterator[Any]:
        raise AssertionError("the LM isn't streamed in this test")


@oneturn.recipe(lambda train, dev: Work(runs=(2, train)))
def few_shot(student: Any, *, trainset: Any, valset: Any, metric: Any, seed: int, threads: int, **_: Any) -> Any:
    optimizer = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=0)
    return optimizer.compile(student, trainset=trainset)


def broken(student: Any, **_: Any) -> Any:
    raise ValueError("it doesn't fit")


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    data = SAMPLES / "sums.jsonl"
    monkeypatch.setattr("oneturn.agent.build_lm", lambda config: dspy.LM("sample/lm", engine=SampleEngine(data)))
    monkeypatch.setattr(recipes, "RECIPES", {"few_shot": few_shot, "broken": broken})
    (tmp_path / "config.yaml").write_text("lm:\n  model: sample/lm\n")
    argv = ["recipes", "--data", str(data), "--metric", "number", "--config", str(tmp_path / "config.yaml")]
    argv += [
        "--tools",
        "benchmarks.calculator:calculate",
        "--only",
        "oneturn.ReAct",
        "--report",
        str(tmp_path / "report.md"),
    ]
    argv += ["--dev", "4", "--section", "sums"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.chdir(tmp_path)
    recipes.main()
    return (tmp_path / "report.md").read_text()


def test_table_has_a_line_per_recipe_and_for_the_uncompiled_program(report: str):
    lines = [line.split(" | ") for line in report.splitlines() if line.startswith("| oneturn.ReAct")]
    assert [line[1] for line in lines] == ["uncompiled", "few_shot", "broken"]
    uncompiled, few, failed = lines
    assert few[2] == uncompiled[2] == "8"
    assert few[3] == "100.0%" != uncompiled[3]
    assert re.match(r"\+\d+\.\d \(\+\d", few[5])
    spent, least, most = map(int, re.findall(r"\d+", few[10]))
    assert 0 < least <= spent <= most
    assert failed[3] == "ValueError: it doesn't fit"


def test_report_has_the_number_of_examples(report: str):
    assert report.startswith("<!-- sums -->\n- LM: sample/lm\n- data: sums, 6 train, 4 dev, 8 test\n")


class ArithmeticEngine:
    """An engine that answers in the format that the prompt asks for, and in none of them reads the question."""

    supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def complete(self, request: Request) -> Response:
        prompt = "".join(part.text for message in [request.system, *request.messages] for part in _parts(message))
        if "next_tool_name" in prompt and "[[ ## reasoning" not in prompt:
            text = "[[ ## next_thought ## ]]\nx\n[[ ## next_tool_name ## ]]\nfinish\n[[ ## next_tool_args ## ]]\n{}"
        elif "[[ ## reasoning" in prompt:
            text = "[[ ## reasoning ## ]]\n1 + 1\n\n[[ ## answer ## ]]\nIt is 2.\n"
        elif "Think step by step" in prompt:
            text = "1 + 1 is 2, so\n\nAnswer: 2 apples"
        else:
            text = json.dumps({"tool_call": {"name": "finish", "args": {"answer": "2"}}})
        return Response(None, request.model, Message.assistant(TextPart(text)), "stop", Usage(len(prompt), len(text)))


def _parts(message: Any) -> Any:
    return [TextPart(message)] if isinstance(message, str) else getattr(message, "parts", message) or []


def test_third_party_set_is_answered_by_four_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def read(name: str, sizes: Any) -> list[dict[str, Any]]:
        splits = ("train", "dev", "test", "test")
        return [{"id": f"{n}", "split": s, "question": f"{n}?", "answer": "2"} for n, s in enumerate(splits)]

    sums = QuestionSet("sums", "question -> answer", "Add.", answers.number, read, ("benchmarks.calculator:calculate",))
    monkeypatch.setitem(recipes.SETS, "sums", sums)
    monkeypatch.setattr("oneturn.agent.build_lm", lambda config: dspy.LM("sums/lm", engine=ArithmeticEngine()))
    (tmp_path / "config.yaml").write_text("lm:\n  model: sums/lm\n")
    argv = ["recipes", "--set", "sums", "--recipes", "none", "--config", str(tmp_path / "config.yaml")]
    monkeypatch.setattr(sys, "argv", [*argv, "--report", str(tmp_path / "report.md")])
    monkeypatch.chdir(tmp_path)
    recipes.main()
    report = (tmp_path / "report.md").read_text()
    lines = [line.split(" | ")[:4] for line in report.splitlines() if "| uncompiled |" in line]
    assert lines == [
        [f"| {name}", "uncompiled", "2", "100.0%"]
        for name in ("plain chat", "dspy.ChainOfThought", "dspy.ReAct", "oneturn.ReAct")
    ]
    assert "- oneturn.ReAct − plain chat: +0.0 (+0.0 to +0.0) points" in report
    assert "- oneturn.ReAct − dspy.ReAct: +0.0 (+0.0 to +0.0) points" in report
    assert recipes.set_agent("sums", AgentConfig()).config.lm.max_tokens == recipes.SET_TOKENS


def test_sample_file_is_split_and_scored():
    agent = jsonl_agent(SAMPLES / "hops.jsonl", "question, context -> answer", [], "exact", AgentConfig())
    sizes = {split: len(agent.examples(split)) for split in ("train", "dev", "test")}
    assert sizes == {"train": 4, "dev": 4, "test": 7}
    assert len({example.id for split in sizes for example in agent.examples(split)}) == 15
    gold = agent.examples("test")[0]
    assert agent.metric(gold, dspy.Prediction(answer=f" {gold.answer}. ")) == 1.0
    wrong = agent.metric(gold, dspy.Prediction(answer="no"), None, "step", None)
    assert (wrong.score, wrong.feedback) == (0.0, f"'no' is wrong; it should be {gold.answer!r}.")


def with_splits(path: Path, names: list[str | None]) -> oneturn.Agent:
    rows = [{"question": f"{n}?", "answer": str(n), "split": name} for n, name in enumerate(names)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return jsonl_agent(path, "question -> answer", [], "exact", AgentConfig())


def test_splits_of_the_file_are_used(tmp_path: Path):
    agent = with_splits(tmp_path / "own.jsonl", ["train", "test", "dev", "test"])
    questions = {split: [example.question for example in agent.examples(split)] for split in ("train", "dev", "test")}
    assert questions == {"train": ["0?"], "dev": ["2?"], "test": ["1?", "3?"]}
    with pytest.raises(DataError, match="Row 2: its split is 'validation'; it must be one of train, dev, test"):
        with_splits(tmp_path / "other.jsonl", ["train", "validation"]).examples("train")
    with pytest.raises(DataError, match="Row 2: its split is None"):
        with_splits(tmp_path / "half.jsonl", ["train", None]).examples("train")
    with pytest.raises(DataError, match="The split 'dev' has no rows"):
        with_splits(tmp_path / "few.jsonl", ["train", "test"]).examples("train")


def test_missing_fields_and_rows_are_errors(tmp_path: Path):
    path = tmp_path / "few.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n')
    with pytest.raises(DataError, match="line 1: there is no 'context'"):
        jsonl_agent(path, "question, context -> answer", [], "exact", AgentConfig()).examples("train")
    path.write_text('{"question": "a", "context": "c", "answer": "b"}\n{"question": "a", "answer": "b"}\n')
    with pytest.raises(DataError, match="line 2: there is no 'context'"):
        jsonl_agent(path, "question, context -> answer", [], "exact", AgentConfig()).examples("train")
    path.write_text('{"question": "a", "answer": "b"}\n')
    with pytest.raises(DataError, match=r"There are 1 rows; .* needs 10 or more"):
        jsonl_agent(path, "question -> answer", [], "exact", AgentConfig()).examples("train")
