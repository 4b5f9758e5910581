"""The command line, on an agent of a few lines with a scripted LM."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import mlflow
import pandas as pd
import pytest
import typer
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.cli.tables import comparison
from oneturn.evaluation.result import Evaluation
from tests.evaluation.scorers.judging import judging

AGENT = """
from pathlib import Path

import dspy

import oneturn
from oneturn.testing import ScriptedLM, finish


class TinyAgent(oneturn.Agent):
    def lm(self):
        return ScriptedLM(*[lambda asked: finish(answer="no" if "uncertain" in asked.text else "yes")] * 99)


def is_right(example, prediction, trace=None):
    return prediction.answer == example.answer


def examples(split):
    rows = [("Is it?", "yes", "easy"), ("Is it uncertain?", "yes", "hard"), ("Is it so?", "yes", "easy")]
    found = [dspy.Example(question=q, answer=a, category=c, sources=["s"]) for q, a, c in rows]
    return [example.with_inputs("question") for example in found]


AGENT = TinyAgent(
    name="tiny",
    config=oneturn.AgentConfig.read("config.yaml", root=Path(__file__).parent),
    build=lambda: oneturn.ReAct("question -> answer", tools=[], thoughts=False),
    metric=is_right,
    examples=examples,
    recipes={"as_it_is": lambda student, **_: student},
    root=Path(__file__).parent,
    code_paths=(),
    example_questions=("Is it?",),
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _trace_store: str) -> Iterator[Path]:
    """A folder with an agent in it, as the working directory."""
    (tmp_path / "agent.py").write_text(AGENT)
    config = {
        "compiled": "compiled.json",
        "compile": {"recipe": "as_it_is", "threads": 1},
        "mlflow": {"tracking_uri": _trace_store, "experiment": "tiny"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    (tmp_path / "uncompiled.yaml").write_text(json.dumps({**config, "compiled": None}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "agent", None)
    for variable in ("ONETURN_CONFIG", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI", "DATABRICKS_TOKEN"):
        monkeypatch.setenv(variable, "")  # what a command sets is taken back after the test
        monkeypatch.delenv(variable)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    before = mlflow.get_tracking_uri()
    yield tmp_path
    mlflow.set_tracking_uri(before)


def run(*words: str) -> Result:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def output(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.output


OF_AN_AGENT = ("ask", "compile", "demo", "diff", "evaluate", "log", "promote", "query", "rollback", "serve")
COMMANDS = (*OF_AN_AGENT, "check", "report")


def test_the_commands_are_these():
    text = output("--help")
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)
    assert "--version" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_examples(command: str):
    text = click.unstyle(output(command, "--help"))
    assert f"oneturn {command}" in text.partition("Examples:")[2]
    assert ("--config" in text) == ("--agent" in text) == (command in OF_AN_AGENT)


def test_the_version_is_told():
    assert re.fullmatch(r"oneturn \d+\.\d+\.\d+\n", output("--version"))


@pytest.mark.usefixtures("folder")
def test_ask_shows_the_answer():
    assert output("ask", "Is it?", "--config", "uncompiled.yaml").startswith("yes\n1 LM call, ")


@pytest.mark.usefixtures("folder")
def test_compile_says_which_recipes_there_are():
    assert output("compile", "--recipes") == "  as_it_is  It doesn't say when to take it.\n"


def test_compile_shows_before_and_after_and_keeps_the_program(folder: Path):
    text = output("compile", "--recipe", "as_it_is")
    assert re.search(r"uncompiled .* 66\.7% .* 0\.0% to 100\.0%", text)
    assert re.search(r"\bcompiled .* 66\.7%", text)
    assert "compiled.json" in text
    assert json.loads((folder / "compiled.json").read_text())["manifest"]["recipe"] == "as_it_is"
    assert output("ask", "Is it?").startswith("yes\n"), "what was compiled is what is asked"


def test_a_comparison_stands_whole_in_80_columns():
    figures = {"seconds": [17.5, 118.0, 19.0], "lm_calls": [3, 4, 3], "prompt_tokens": 15_880, "completion_tokens": 120}
    told = {"id": ["a", "b", "c"], "score": [0.5, 1.0, 0.25], "feedback": None, "error": [None, None, "X: y"]}
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(comparison({"uncompiled": Evaluation(pd.DataFrame({**told, **figures}))}))
    line, below = [line.strip() for line in shown.get().splitlines() if line.strip()][-2:]
    assert re.fullmatch(r"uncompiled +58\.3% +\S+% to \S+% +3 +51\.50 +3\.33 +15880 / 120", line)
    assert re.fullmatch(r"1 failed +\(67\.8, 108\)", below)


@pytest.mark.usefixtures("folder")
def test_evaluate_shows_the_score_by_category():
    text = output("evaluate", "--uncompiled", "--split", "dev")
    assert re.search(r"tiny on dev .* 66\.7%", text)
    assert re.search(r"easy .* 100\.0% .* 100\.0% to 100\.0% .* 2 ", text)
    assert re.search(r"hard .* 0\.0% .* 1 ", text)


@pytest.mark.usefixtures("folder")
def test_evaluate_takes_a_part():
    assert re.search(r"tiny on test .* 100\.0%", output("evaluate", "--uncompiled", "--limit", "1"))


READERS: dict[str, Any] = {
    "rows.jsonl": lambda path: pd.read_json(path, lines=True),
    "rows.csv": pd.read_csv,
    "new/rows.parquet": pd.read_parquet,
}


@pytest.mark.parametrize("name", READERS)
def test_evaluate_writes_its_rows(name: str, folder: Path):
    text = output("evaluate", "--uncompiled", "--output", name)
    rows = READERS[name](folder / name)
    assert f"Rows: {name}" in text
    assert list(rows["pred_answer"]) == ["yes", "no", "yes"]
    assert list(rows["score"]) == [1.0, 0.0, 1.0]
    sources = rows["sources"][0]
    assert (sources if isinstance(sources, list) else json.loads(sources)) == ["s"]


@pytest.mark.usefixtures("folder")
def test_evaluate_writes_a_report_beside_an_earlier_one():
    output("evaluate", "--uncompiled", "--output", "before.jsonl")
    text = output("evaluate", "--uncompiled", "--report", "new/report.html", "--baseline", "before.jsonl")
    assert "The page: new/report.html" in text
    assert "Against before" in Path("new/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--report", "report.jsonl"], "report.jsonl must end in .html"),
        (["--baseline", "before.jsonl"], "add --report"),
        (["--report", "r.html", "--baseline", "gone.jsonl"], "gone.jsonl isn't there"),
    ],
)
def test_evaluate_refuses_a_report_that_can_t_be_before_it_begins(options: list[str], reason: str, folder: Path):
    done = run("evaluate", "--uncompiled", "--output", "rows.jsonl", *options)
    assert done.exit_code != 0
    assert reason in re.sub(r"[\s│]+", " ", done.output)
    assert list(folder.glob("rows.jsonl*")) == []


@pytest.mark.usefixtures("folder")
def test_report_makes_a_page_of_rows(monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    output("evaluate", "--uncompiled", "--output", "rows.jsonl")
    text = output("report", "rows.jsonl", "--baseline", "rows.jsonl", "--output", "r.html", "--title", "Mine", "--open")
    assert "The page: r.html" in text
    assert "<title>Mine</title>" in Path("r.html").read_text()
    assert opened == ["r.html"]


@pytest.mark.usefixtures("folder")
def test_evaluate_asks_a_served_agent_about_rows_of_one_s_own():
    Path("mine.jsonl").write_text('{"question": "Is it?", "answer": "yes"}\n')
    adapter = oneturn.ResponsesAdapter(oneturn.load_agent(config="uncompiled.yaml").serving_program())
    with oneturn.running_server(adapter) as url:
        text = output("evaluate", url, "--data", "mine.jsonl")
    assert re.search(r"on mine.jsonl .* 100\.0% .* 1 ", text)


@pytest.mark.usefixtures("folder")
def test_evaluate_repeats_and_logs():
    text = output("evaluate", "--uncompiled", "--repeats", "2", "--log")
    assert re.search(r"2 of 2 tries pass .* 66\.7%", text)
    run_id = re.search(r"MLflow run: (\w+)", text)
    assert run_id is not None
    logged = mlflow.get_run(run_id[1])
    assert logged.data.metrics["rows"] == 6
    assert logged.data.metrics["pass_hat_2"] == pytest.approx(2 / 3)
    assert [found.dataset.name for found in logged.inputs.dataset_inputs] == ["tiny on test"]
    assert "report" in [found.path for found in mlflow.MlflowClient().list_artifacts(run_id[1])]


@pytest.mark.usefixtures("folder")
def test_two_evaluations_are_compared():
    for name in ("one.jsonl", "two.parquet"):
        output("evaluate", "--uncompiled", "--output", name)
    assert json.loads(output("compare", "one.jsonl", "two.parquet", "--json", "-"))["difference"] == 0
    done = run("compare", "one.jsonl", "two.parquet", "--gate", "--markdown", "both.md")
    assert done.exit_code == 1
    assert "two" in Path("both.md").read_text()
    assert "gone.jsonl isn't there" in run("compare", "gone.jsonl", "two.parquet").output


@pytest.mark.usefixtures("folder")
def test_evaluate_says_that_there_is_no_judge():
    text = output("evaluate", "--uncompiled", "--output", "rows.jsonl")
    told = "Not judged: no judge is configured; set judge.model, or give model=."
    assert f"groundedness: 3 of 3 rows. {told}\nrelevance: 3 of 3 rows. {told}\n" in text
    rows = Evaluation.read(Path("rows.jsonl")).rows
    assert rows["relevance"].isna().all()
    assert rows["relevance_feedback"].tolist() == [told] * 3


@pytest.mark.usefixtures("folder")
def test_a_judge_is_calibrated_on_answers_that_people_have_judged(monkeypatch: pytest.MonkeyPatch):
    rows = [{"question": f"{n}?", "answer": "so", "label": n > 1} for n in range(6)]
    Path("labelled.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("judge", "calibrate", "labelled.jsonl", "--judge", "relevance")
    assert "No judge is configured: set judge.model" in run(*words).output
    words = (*words, "--model", "openai:/judge")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with judging(lambda prompt: "no" if "0?" in prompt or "1?" in prompt else "yes") as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        text = output(*words, "--gate")
        assert "relevance agrees with people: kappa 1.00" in text
        assert re.search(r"judge: yes\W+4\W+0", text)
        assert json.loads(output(*words, "--json"))["confusion"]["both_no"] == 2
        server.rule = lambda prompt: "yes"
        assert run(*words, "--gate").exit_code == 1
        assert "Don't trust relevance: kappa 0.00" in output(*words)


@pytest.mark.usefixtures("folder")
def test_log_says_where_it_is_and_what_to_do_with_it(monkeypatch: pytest.MonkeyPatch):
    from oneturn.deployment import model_logging as model_log

    asked: dict[str, Any] = {}

    def log(agent: oneturn.Agent, *, register: bool, alias: str | None) -> model_log.LoggedAgent:
        asked.update(name=agent.name, register=register, alias=alias)
        return model_log.LoggedAgent("models:/m-1", "run-1", "3")

    monkeypatch.setattr(model_log, "log_model", log)
    text = output("log", "--register", "--alias", "challenger")
    assert asked == {"name": "tiny", "register": True, "alias": "challenger"}
    assert "Logged models:/m-1 in sqlite:" in text
    assert "Registered as version 3 of support_desk, challenger" in text
    assert "oneturn serve --model models:/m-1" in text
    assert "oneturn query http://127.0.0.1:8000" in text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "served", "host", "port"),
    [
        (("--port", "0"), "tiny", None, 0),
        (("--host", "0.0.0.0"), "tiny", "0.0.0.0", None),
        (("--model", "models:/tiny/1"), "models:/tiny/1", None, None),
        (("--model", "models:/tiny/1", "--config", "config.yaml"), "models:/tiny/1", "127.0.0.1", 8000),
    ],
)
def test_serve_serves_what_was_named(
    words: tuple[str, ...], served: str, host: str | None, port: int | None, monkeypatch: pytest.MonkeyPatch
):
    calls: list[Any] = []
    monkeypatch.setattr("oneturn.serving.server.serve", lambda what, **where: calls.append((what, where)))
    output("serve", *words)
    [(what, where)] = calls
    assert (what if isinstance(what, str) else what.name) == served
    assert where == {"host": host, "port": port}


@pytest.mark.usefixtures("folder")
def test_query_asks_a_served_agent():
    adapter = oneturn.ResponsesAdapter(oneturn.load_agent(config="uncompiled.yaml").serving_program())
    with oneturn.running_server(adapter) as url:
        assert output("query", url, "Is it?").startswith("yes\n")
        port = url.rpartition(":")[2]
        Path("here.yaml").write_text(json.dumps({"serve": {"port": int(port)}}))
        assert output("query", "Is it?", "--config", "here.yaml").startswith("yes\n")


ASKING = """
def pay(euros: float) -> str:
    \"\"\"Pay.\"\"\"
    return "paid"

class Payer(oneturn.Agent):
    def lm(self):
        from oneturn.testing import call
        wanted = call("pay", "", euros=3)
        return ScriptedLM(wanted, lambda asked: finish(answer="no" if "refused" in asked.text else "yes"))

    def adapter(self, program=None):
        return oneturn.ResponsesAdapter(self.serving_program(), approvals=oneturn.Approvals("k" * 32))

import dataclasses

AGENT = Payer(**{
    field.name: getattr(AGENT, field.name) for field in dataclasses.fields(AGENT)
} | {"build": lambda: oneturn.ReAct("question -> answer", tools=[oneturn.tool(pay, approval=True)], thoughts=False)})
"""


def test_a_call_that_needs_a_person_is_approved_by_option_or_the_command_says_that_it_waits(folder: Path):
    (folder / "paying.py").write_text(AGENT + ASKING)
    ask = ("ask", "Is it?", "--config", "uncompiled.yaml", "--agent", "paying.py")
    assert "yes\n" in output(*ask, "--approve")
    assert "no\n" in output(*ask, "--refuse")
    waiting = run(*ask)
    assert waiting.exit_code == 3
    assert waiting.stderr == "No answer yet: pay waits for approval. Say --approve or --refuse.\n"


@pytest.mark.usefixtures("folder")
def test_demo_is_given_the_agent(monkeypatch: pytest.MonkeyPatch):
    names: list[str] = []
    monkeypatch.setattr("oneturn.cli.walkthrough.demo", lambda agent: names.append(agent.name))
    output("demo")
    assert names == ["tiny"]


FAILURES = {
    "no agent file": (
        ("ask", "x", "--agent", "other.py"),
        "There is no {folder}/other.py. Run oneturn in the folder of your agent.py, or pass --agent PATH.",
    ),
    "a file that declares none": (
        ("ask", "x", "--agent", "empty.py"),
        "{folder}/empty.py declares no AGENT; set AGENT = oneturn.Agent(…) in it.",
    ),
    "not compiled": (
        ("evaluate",),
        "There is no compiled program {folder}/compiled.json. Make one with: oneturn compile",
    ),
    "no such recipe": (
        ("compile", "--recipe", "magic"),
        "There is no recipe 'magic'. Known are:\n  as_it_is  It doesn't say when to take it.",
    ),
    "no configuration": (
        ("ask", "x", "--config", "gone.yaml"),
        "There is no file '{folder}/gone.yaml': 'gone.yaml' isn't in {folder}.",
    ),
    "an unknown input": (
        ("ask", "x", "--config", "uncompiled.yaml", "--custom-inputs", '{"colour": 1}'),
        "custom_inputs has an unknown field 'colour'; known: question.",
    ),
    "no URL": (("query", "agent", "x"), "'agent' isn't an endpoint URL; pass one such as http://127.0.0.1:8000."),
    "no token": (
        ("query", "https://workspace.invalid/serving-endpoints/desk", "x"),
        (
            "There are no credentials for https://workspace.invalid. Set DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID and "
            "DATABRICKS_CLIENT_SECRET; or DATABRICKS_CONFIG_PROFILE, which names a profile of ~/.databrickscfg."
        ),
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_an_error_is_one_line_and_code_1(case: str, folder: Path):
    (folder / "empty.py").write_text("")
    words, message = FAILURES[case]
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {message.format(folder=folder)}\n"


USAGE_ERRORS = {
    "no question": (("ask",), "Missing argument"),
    "no JSON": (("ask", "x", "--custom-inputs", "{"), "isn't JSON"),
    "no object": (("ask", "x", "--custom-inputs", "[1]"), "must be a JSON object"),
    "no such split": (("evaluate", "--split", "all"), "Invalid value for '--split'"),
    "no rows": (("evaluate", "--limit", "0"), "Invalid value for '--limit'"),
    "an unknown kind of file": (("evaluate", "--output", "rows.txt"), "must end in .jsonl, .csv or .parquet"),
    "no port": (("serve", "--port", "70000"), "Invalid value for '--port'"),
    "too many words": (("query", "a", "b", "c"), "give a URL and a question in quotes"),
    "no such command": (("fly",), "No such command 'fly'"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_a_usage_error_is_told_with_code_2(case: str):
    words, message = USAGE_ERRORS[case]
    result = run(*words)
    assert result.exit_code == 2
    assert message in " ".join(click.unstyle(result.stderr).split())
