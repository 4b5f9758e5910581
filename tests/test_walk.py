"""The whole way on one page: ask, approve, correct, review the correction, compile with it, and promote the version."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.datasets.candidate_review import CandidateReview
from oneturn.serving.page.review import ReviewApplication
from oneturn.serving.server import build_application, running_application
from tests.browser import chromium

pytestmark = pytest.mark.browser

browser = pytest.fixture(chromium, scope="module", name="browser")

PARTS = '''
"""A desk whose LM knows the right number only from its instructions."""

import dspy
from mlflow.entities import Document

import oneturn
from oneturn.compilation import Work
from oneturn.testing import ScriptedLM, call, finish


def search(query: str) -> list[Document]:
    """Find passages."""
    metadata = {"title": "Limits", "doc_uri": "https://handbook.example/limits"}
    return [Document("A plan has a number of machines.", metadata=metadata, id="limits")]


def refund(order: str, amount: float) -> str:
    """Pay an order back."""
    return f"{order} is paid back"


def reply(asked):
    text = asked.text
    if "is paid back" in text:
        return finish(answer="Paid.", citations=[])
    if "a person refused" in text:
        return finish(answer="Not paid.", citations=[])
    if "Pay M-1045" in text:
        return call("refund", order="M-1045", amount=12.5)
    if "[limits]" not in text:
        return call("search", query="limits")
    number = "five" if "-> five machines" in text else "seven"
    return finish(answer=f"{number} machines", citations=["limits"])


class Answer(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    citations: list[oneturn.Citation] = dspy.OutputField()


class Desk(oneturn.Agent):
    def lm(self):
        return ScriptedLM(*[reply] * 999)


@oneturn.recipe(lambda train, dev: Work(runs=(0, 1), prompt_growth=(1, 2)))
def notes(student, *, trainset, valset, metric, seed, threads):
    """Use it in tests: the examples become a part of the instructions."""
    lines = [f"{example.question} -> {example.answer}" for example in trainset]
    signature = student.step.signature
    student.step.signature = signature.with_instructions("\\n".join([signature.instructions, *lines]))
    return student


def build():
    return oneturn.ReAct(Answer, tools=[search, oneturn.tool(refund, approval=True)])


def metric(example, prediction, trace=None):
    return prediction.answer == example.answer
'''
AGENT = '''
"""The desk."""

from pathlib import Path

import mlflow

import oneturn
from desk_of_walk import parts

ROOT = Path(parts.__file__).parents[1]
AGENT = parts.Desk(
    name="walk",
    config=oneturn.AgentConfig.read("config.json", root=ROOT),
    build=parts.build,
    metric=parts.metric,
    recipes={"notes": parts.notes},
    root=ROOT,
    code_paths=("desk_of_walk",),
    example_questions=("How many machines?",),
)
mlflow.models.set_model(AGENT.adapter())
'''
QUESTION = "How many machines may a plan have?"


@pytest.fixture
def project(tmp_path: Path, traced: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The agent's folder, with examples, in which the commands run."""
    (tmp_path / "desk_of_walk").mkdir()
    (tmp_path / "desk_of_walk" / "__init__.py").write_text("")
    (tmp_path / "desk_of_walk" / "parts.py").write_text(PARTS)
    (tmp_path / "agent.py").write_text(AGENT)
    config = {
        "compiled": "desk_of_walk/compiled.json",
        "mlflow": {"tracking_uri": mlflow.get_tracking_uri(), "experiment": "walk", "model_name": "walk"},
        "approvals": {"key_env": "WALK_KEY"},
        "compile": {"recipe": "notes"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    examples = tmp_path / "data" / "examples"
    examples.mkdir(parents=True)
    for split, count in (("train", 2), ("dev", 20)):
        rows = [
            {"id": f"{split}-{n}", "question": f"May customer {n} of {split} have many?", "answer": "five machines"}
            for n in range(count)
        ]
        if split == "train":  # until somebody corrects the agent, no example has the answer
            rows = [{**row, "answer": "it depends"} for row in rows]
        (examples / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("WALK_KEY", "0123456789abcdef" * 2)
    monkeypatch.setattr("mlflow.tracking._model_registry.utils._registry_uri", None)  # what a test of a workspace set
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", mlflow.get_tracking_uri())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(sys.modules, "agent", None)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "desk_of_walk"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def run(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--config", "config.json"])
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def test_from_the_first_question_to_the_next_version(project: Path, browser: Browser):
    run("compile")  # with the examples that there are
    assert "uncompiled →" in run("diff"), "there is no earlier one to compare it with"
    agent = oneturn.load_agent(project / "agent.py", project / "config.json")
    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    with running_application(build_application(agent, agent.config.serve, "127.0.0.1")) as url:
        page.goto(url)
        ask(page, QUESTION)
        expect(page.locator(".answer")).to_have_text("seven machines")
        expect(page.locator(".tool .name")).to_have_text("search")
        expect(page.get_by_role("region", name="Sources")).to_contain_text("Limits")
        page.get_by_role("button", name="Wrong").click()
        page.get_by_role("textbox", name="answer").fill("five machines")
        page.get_by_label("Comment").fill("Since May.")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("Thank you, recorded.")).to_be_visible()

        for number, (verdict, answer) in enumerate([("Refuse", "Not paid."), ("Approve", "Paid.")]):
            ask(page, f"Pay M-1045 back, time {number}.")
            turn = page.get_by_role("article").last
            expect(turn.get_by_role("row", name='order "M-1045"')).to_be_visible()
            turn.get_by_role("button", name=verdict).click()
            expect(turn.locator(".answer")).to_have_text(answer)

    assert "1 new candidates" in run("data", "from-traces")
    review = ReviewApplication(CandidateReview(agent))
    with running_application(review) as url:
        page.goto(f"{url}/#{review.token}")
        expect(page.get_by_role("region", name="Feedback")).to_contain_text("A person corrected the answer.")
        expect(page.get_by_role("textbox", name="question")).to_have_value(QUESTION)
        expect(page.get_by_role("textbox", name="answer")).to_have_value("five machines")
        page.get_by_text("The agent's answer").click()
        expect(page.get_by_role("row", name="answer seven machines")).to_be_visible()
        page.get_by_role("button", name="Accept into train").click()
        expect(page.get_by_role("heading", name="All reviewed")).to_be_visible()
        assert review.token not in page.url
    *_, accepted = map(json.loads, (project / "data" / "examples" / "train.jsonl").read_text().splitlines())
    assert (accepted["question"], accepted["answer"]) == (QUESTION, "five machines")
    assert "citations" not in accepted, "the person corrected the answer alone"

    run("compile")
    run("log", "--register")
    output = run("promote")
    assert str(MlflowClient().get_model_version_by_alias("walk", "champion").version) == "1", output
