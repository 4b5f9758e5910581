"""The command line, with a small agent and a scripted LM."""

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
from oneturn.cli.tables import score_table
from oneturn.evaluation import compare
from oneturn.evaluation.result import Evaluation
from oneturn.testing import ScriptedLM, finish
from tests.evaluation.scorers.judging import judging

AGENT = """
from pathlib import Path

import dspy

import oneturn
from oneturn.testing import ScriptedLM, finish


class TinyAgent(oneturn.Agent):
    def lm(self):
        return ScriptedLM(*[lambda request: finish(answer="no" if "uncertain" in request.text else "yes")] * 99)


def is_right(example, prediction, trace=None):
    return prediction.answer == example.answer


def examples(split):
    rows = [("Is it?", "yes", "easy"), ("Is it uncertain?", "yes", "hard"), ("Is it so?", "yes", "easy")]
    examples = [dspy.Example(question=q, answer=a, category=c, sources=["s"]) for q, a, c in rows]
    return [example.with_inputs("question") for example in examples]


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
    """The working directory, a folder with an agent."""
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
        monkeypatch.setenv(variable, "")  # restored after the test
        monkeypatch.delenv(variable)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    before = mlflow.get_tracking_uri()
    yield tmp_path
    mlflow.set_tracking_uri(before)


def run(*arguments: str) -> Result:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def output(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


AGENT_COMMANDS = ("ask", "compile", "demo", "diff", "evaluate", "log", "promote", "query", "rollback", "serve")
COMMANDS = (*AGENT_COMMANDS, "check", "report")


def test_help_lists_the_commands():
    text = output("--help")
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)
    assert "--version" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_examples(command: str):
    text = click.unstyle(output(command, "--help"))
    assert f"oneturn {command}" in text.partition("Examples:")[2]
    assert ("--config" in text) == ("--agent" in text) == (command in AGENT_COMMANDS)


def test_version_is_printed():
    assert re.fullmatch(r"oneturn \d+\.\d+\.\d+\n", output("--version"))


@pytest.mark.usefixtures("folder")
def test_ask_prints_the_answer():
    assert output("ask", "Is it?", "--config", "uncompiled.yaml").startswith("yes\n1 LM call, ")


@pytest.mark.usefixtures("folder")
def test_ask_in_a_pipe_writes_the_answer_to_stdout_and_the_run_to_stderr():
    done = run("ask", "Is it?", "--config", "uncompiled.yaml")
    assert done.stdout == "yes\n"
    assert done.stderr.startswith("1 LM call, ")


@pytest.mark.usefixtures("folder")
def test_ask_prints_one_json_object():
    done = run("ask", "Is it?", "--config", "uncompiled.yaml", "--json")
    reply = json.loads(done.stdout)
    assert (reply["answer"], reply["outputs"], reply["usage"]["lm_calls"]) == ("yes", {"answer": "yes"}, 1)
    assert reply["trace_id"].startswith("tr-")


def test_query_takes_an_address_without_a_scheme_and_prints_json(folder: Path):
    program = oneturn.ReAct("question -> answer", tools=[], thoughts=False)
    program.set_lm(ScriptedLM(*[finish(answer="yes")] * 2))
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url:
        address = url.removeprefix("http://")
        assert run("query", address, "Is it?").stdout == "yes\n"
        assert json.loads(run("query", address, "Is it?", "--json").stdout)["answer"] == "yes"
    missing = run("query", "localhost:8000")
    assert (missing.exit_code, "a question in quotes" in missing.output) == (2, True)


@pytest.mark.usefixtures("folder")
def test_compile_lists_the_recipes():
    assert output("compile", "--recipes") == "  as_it_is  (no description)\n"


def test_compile_prints_both_scores_and_writes_the_program(folder: Path):
    text = output("compile", "--recipe", "as_it_is")
    assert re.search(r"uncompiled .* 66\.7% .* 0\.0% to 100\.0%", text)
    assert re.search(r"\bcompiled .* 66\.7%", text)
    assert "compiled.json" in text
    assert json.loads((folder / "compiled.json").read_text())["manifest"]["recipe"] == "as_it_is"
    assert output("ask", "Is it?").startswith("yes\n"), "ask uses the compiled program"


def test_score_table_cuts_no_name_and_no_figure_in_60_columns():
    rows = {"id": ["a", "b", "c"], "score": [0.5, 1.0, 0.25], "feedback": None, "error": [None, None, "X: y"]}
    figures = {"seconds": [17.5, 118.0, 19.0], "lm_calls": [3, 4, 3], "prompt_tokens": 15_880, "completion_tokens": 120}
    evaluation = Evaluation(pd.DataFrame({**rows, **figures}))
    name = "https://workspace.example/serving-endpoints/support_desk on [dev]"
    console = Console(width=60, file=io.StringIO())
    with console.capture() as shown:
        console.print(score_table({name: evaluation, "compiled": evaluation}, console.width))
    text = shown.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 60
    head = "".join(line[20:45].strip() for line in text.splitlines()[:5] if "─" not in line)
    assert name.replace(" ", "") in head.replace(" ", "").replace("compiled", "")
    assert re.search(r"^ *tokens in / out +15880 / 120 +15880 / 120 *$", text, re.M)
    assert len(re.findall(r"58\.3%", text)) == 2


def test_comparison_cuts_no_id_in_60_columns():
    rows = [{"id": f"dev-{n:03d}-a-long-name-of-an-example", "score": 0.0, "error": None} for n in range(3)]
    before, after = pd.DataFrame(rows), pd.DataFrame([{**row, "score": 1.0} for row in rows])
    console = Console(width=60, file=io.StringIO())
    with console.capture() as shown:
        console.print(compare(Evaluation(before), Evaluation(after), oneturn.AgentConfig.read({}).gate))
    assert "…" not in shown.get()


def test_score_table_fits_into_80_columns():
    figures = {"seconds": [17.5, 118.0, 19.0], "lm_calls": [3, 4, 3], "prompt_tokens": 15_880, "completion_tokens": 120}
    rows = {"id": ["a", "b", "c"], "score": [0.5, 1.0, 0.25], "feedback": None, "error": [None, None, "X: y"]}
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(score_table({"uncompiled": Evaluation(pd.DataFrame({**rows, **figures}))}))
    line, below = [line.strip() for line in shown.get().splitlines() if line.strip()][-2:]
    assert re.fullmatch(r"uncompiled +58\.3% +\S+% to \S+% +3 +51\.50 +3\.33 +15880 / 120", line)
    assert re.fullmatch(r"1 failed +\(67\.8, 108\)", below)


@pytest.mark.usefixtures("folder")
def test_evaluate_shows_the_score_by_category():
    text = output("evaluate", "--uncompiled", "--split", "dev")
    assert re.search(r"tiny on dev .* 66\.7%", text)
    assert re.search(r"easy .* 100\.0% .* 34\.2% to 100\.0% .* 2 ", text)
    assert re.search(r"hard .* 0\.0% .* 1 ", text)


def test_evaluate_shows_the_score_by_each_label_with_an_enum(folder: Path):
    fields = {"style": {"enum": ["short", "long"], "default": "short"}, "answer": {"type": "string"}}
    (folder / "data" / "examples").mkdir(parents=True)
    (folder / "data" / "examples" / "schema.json").write_text(json.dumps({"properties": fields}))
    (folder / "agent.py").write_text(AGENT.replace("for example in examples]", "for example in labelled(examples)]"))
    with (folder / "agent.py").open("a") as file:
        file.write("\n\ndef labelled(examples):\n    return [*examples[:2], examples[2].copy(style='long')]\n")
    text = output("evaluate", "--uncompiled")
    assert re.search(r"easy .* 2 \s*\n", text)
    assert re.search(r"short +50\.0% .* 2 \s*\n", text), "rows without the label have the schema's default"
    assert re.search(r"long +100\.0% .* 1 \s*\n", text)
    assert not re.search(r"^ *answer +score", text, re.MULTILINE)


@pytest.mark.usefixtures("folder")
def test_evaluate_limits_the_rows():
    assert re.search(r"tiny on test .* 100\.0%", output("evaluate", "--uncompiled", "--limit", "1"))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "given",
    [
        ("--data", "rows.jsonl", "--limit", "1"),
        ("--data", "rows.jsonl", "--split", "dev"),
        ("--rescore", "rows.jsonl", "--split", "dev"),
        ("http://127.0.0.1:9", "--uncompiled"),
        ("--rescore", "rows.jsonl", "--limit", "1"),
        ("--rescore", "rows.jsonl", "--repeats", "2"),
        ("--rescore", "rows.jsonl", "--fresh"),
        ("http://127.0.0.1:9", "--rescore", "rows.jsonl"),
    ],
)
def test_evaluate_refuses_options_without_effect(given: tuple[str, ...]):
    assert "it has no effect with" in " ".join(run("evaluate", *given).output.split())


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
def test_evaluate_writes_a_report_with_a_baseline():
    output("evaluate", "--uncompiled", "--output", "before.jsonl")
    text = output("evaluate", "--uncompiled", "--report", "new/report.html", "--baseline", "before.jsonl")
    assert "Page: new/report.html" in text
    assert "Against before" in Path("new/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--report", "report.jsonl"], "report.jsonl must end in .html"),
        (["--baseline", "before.jsonl"], "add --report"),
        (["--report", "r.html", "--baseline", "gone.jsonl"], "gone.jsonl doesn't exist"),
    ],
)
def test_evaluate_rejects_invalid_report_options_before_it_starts(options: list[str], reason: str, folder: Path):
    done = run("evaluate", "--uncompiled", "--output", "rows.jsonl", *options)
    assert done.exit_code != 0
    assert reason in re.sub(r"[\s│]+", " ", done.output)
    assert list(folder.glob("rows.jsonl*")) == []


@pytest.mark.usefixtures("folder")
def test_report_writes_a_page(monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    output("evaluate", "--uncompiled", "--output", "rows.jsonl")
    text = output("report", "rows.jsonl", "--baseline", "rows.jsonl", "--output", "r.html", "--title", "Mine", "--open")
    assert "Page: r.html" in text
    assert "<title>Mine</title>" in Path("r.html").read_text()
    assert opened == ["r.html"]


@pytest.mark.usefixtures("folder")
def test_evaluate_queries_a_served_agent_with_own_rows():
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
    assert [input.dataset.name for input in logged.inputs.dataset_inputs] == ["tiny on test"]
    assert "report" in [artifact.path for artifact in mlflow.MlflowClient().list_artifacts(run_id[1])]


@pytest.mark.usefixtures("folder")
def test_compare_prints_json_and_markdown():
    for name in ("one.jsonl", "two.parquet"):
        output("evaluate", "--uncompiled", "--output", name)
    assert json.loads(output("compare", "one.jsonl", "two.parquet", "--json", "-"))["difference"] == 0
    done = run("compare", "one.jsonl", "two.parquet", "--gate", "--markdown", "both.md")
    assert done.exit_code == 1
    assert "two" in Path("both.md").read_text()
    assert "gone.jsonl doesn't exist" in run("compare", "gone.jsonl", "two.parquet").output
    for option in ("--json", "--markdown"):
        refused = run("compare", "one.jsonl", "two.parquet", option, "missing/both.md")
        assert "there is no folder for missing/both.md" in " ".join(refused.output.split())


@pytest.mark.usefixtures("folder")
def test_evaluate_reports_a_missing_judge():
    text = output("evaluate", "--uncompiled", "--output", "rows.jsonl")
    reason = "Not judged: no judge is configured; set judge.model, or give model=."
    assert f"groundedness, relevance: 3 of 3 rows. {reason}\n" in text
    rows = Evaluation.read(Path("rows.jsonl")).rows
    assert rows["relevance"].isna().all()
    assert rows["relevance_feedback"].tolist() == [reason] * 3


@pytest.mark.usefixtures("folder")
def test_judge_is_calibrated_on_labelled_answers(monkeypatch: pytest.MonkeyPatch):
    rows = [{"question": f"{n}?", "answer": "so", "label": n > 1} for n in range(6)]
    Path("labelled.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ("judge", "calibrate", "labelled.jsonl", "--judge", "relevance")
    assert "No judge is configured: set judge.model" in run(*arguments).output
    arguments = (*arguments, "--model", "openai:/judge")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with judging(lambda prompt: "no" if "0?" in prompt or "1?" in prompt else "yes") as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        text = output(*arguments, "--gate")
        assert "relevance agrees with people: kappa 1.00" in text
        assert re.search(r"judge: yes\W+4\W+0", text)
        assert json.loads(output(*arguments, "--json"))["confusion"]["both_no"] == 2
        server.rule = lambda prompt: "yes"
        assert run(*arguments, "--gate").exit_code == 1
        assert "Don't trust relevance: kappa 0.00" in output(*arguments)


@pytest.mark.usefixtures("folder")
def test_log_prints_the_model_and_next_steps(monkeypatch: pytest.MonkeyPatch):
    from oneturn.deployment import model_logging as model_log

    arguments: dict[str, Any] = {}

    def log(agent: oneturn.Agent, *, register: bool, alias: str | None) -> model_log.LoggedAgent:
        arguments.update(name=agent.name, register=register, alias=alias)
        return model_log.LoggedAgent("models:/m-1", "run-1", "3")

    monkeypatch.setattr(model_log, "log_model", log)
    text = output("log", "--register", "--alias", "challenger")
    assert arguments == {"name": "tiny", "register": True, "alias": "challenger"}
    assert "Logged models:/m-1 in sqlite:" in text
    assert "Registered as version 3 of tiny, challenger" in text
    assert "oneturn serve --model models:/m-1" in text
    assert "oneturn query http://127.0.0.1:8000" in text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "served", "host", "port"),
    [
        (("--port", "0"), "tiny", None, 0),
        (("--host", "0.0.0.0"), "tiny", "0.0.0.0", None),
        (("--model", "models:/tiny/1"), "models:/tiny/1", None, None),
        (("--model", "models:/tiny/1", "--config", "config.yaml"), "models:/tiny/1", "127.0.0.1", 8000),
    ],
)
def test_serve_passes_its_options_on(
    arguments: tuple[str, ...], served: str, host: str | None, port: int | None, monkeypatch: pytest.MonkeyPatch
):
    calls: list[Any] = []
    monkeypatch.setattr("oneturn.serving.server.serve", lambda target, **options: calls.append((target, options)))
    output("serve", *arguments)
    [(target, options)] = calls
    assert (target if isinstance(target, str) else target.name) == served
    if (settings := options.pop("settings", None)) is not None:  # of --config, for a logged model
        options = {"host": options["host"] or settings.host, "port": options["port"] or settings.port}
    assert options == {"host": host, "port": port}


@pytest.mark.usefixtures("folder")
def test_query_prints_the_answer_of_a_served_agent():
    adapter = oneturn.ResponsesAdapter(oneturn.load_agent(config="uncompiled.yaml").serving_program())
    with oneturn.running_server(adapter) as url:
        assert output("query", url, "Is it?").startswith("yes\n")
        port = url.rpartition(":")[2]
        Path("here.yaml").write_text(json.dumps({"serve": {"port": int(port)}}))
        assert output("query", "Is it?", "--config", "here.yaml").startswith("yes\n")


APPROVAL_AGENT = """
def pay(euros: float) -> str:
    \"\"\"Pay.\"\"\"
    return "paid"

class Payer(oneturn.Agent):
    def lm(self):
        from oneturn.testing import call
        payment = call("pay", "", euros=3)
        return ScriptedLM(payment, lambda request: finish(answer="no" if "refused" in request.text else "yes"))

    def adapter(self, program=None):
        return oneturn.ResponsesAdapter(self.serving_program(), approvals=oneturn.Approvals("0123456789abcdef" * 2))

import dataclasses

AGENT = Payer(**{
    field.name: getattr(AGENT, field.name) for field in dataclasses.fields(AGENT)
} | {"build": lambda: oneturn.ReAct("question -> answer", tools=[oneturn.tool(pay, approval=True)], thoughts=False)})
"""


def test_ask_approves_by_option_or_exits_with_3(folder: Path):
    (folder / "paying.py").write_text(AGENT + APPROVAL_AGENT)
    ask = ("ask", "Is it?", "--config", "uncompiled.yaml", "--agent", "paying.py")
    assert "yes\n" in output(*ask, "--approve")
    assert "no\n" in output(*ask, "--refuse")
    waiting = run(*ask)
    assert waiting.exit_code == 3
    assert waiting.stdout == "", "a pipe gets the answer only"
    assert "? pay needs your approval:\n" in waiting.stderr
    assert waiting.stderr.endswith("No answer yet: pay waits for approval. Pass --approve or --refuse.\n")
    as_json = json.loads(run(*ask, "--json").stdout)
    assert (as_json["answer"], as_json["approvals"]) == ("", [{"name": "pay", "arguments": '{"euros": 3}'}])


@pytest.mark.parametrize("command", ["evaluate", "compile"])
@pytest.mark.parametrize("policy", ["all", "none", None])
def test_evaluate_and_compile_take_an_approval_policy(command: str, policy: str | None, folder: Path):
    pays = APPROVAL_AGENT.replace('return "paid"', 'Path("paid").touch(); return "paid"').replace(
        "ScriptedLM(payment, lambda request: finish(",
        "ScriptedLM(*99 * [lambda request: payment if 'question:' in request.messages[-1]['content'] else finish(",
    )
    pays = pays.replace('else "yes")', 'else "yes")]')
    (folder / "paying.py").write_text(AGENT + pays)
    config = "uncompiled.yaml" if command == "evaluate" else "config.yaml"
    options = () if policy is None else ("--approve", policy)
    output(command, "--config", config, "--agent", "paying.py", *options)
    assert (folder / "paid").exists() is (policy == "all")


LOGGED_AGENT = f"""
from pathlib import Path

import mlflow

HERE = Path(__file__).parent
ROOT = HERE / "code" if (HERE / "code").is_dir() else HERE  # in the logged model, or here
{AGENT.replace("Path(__file__).parent", "ROOT").replace("code_paths=()", 'code_paths=("programs",)')}
mlflow.models.set_model(AGENT.adapter())
"""


def test_demo_evaluates_logs_serves_and_queries_the_agent(folder: Path):
    (folder / "agent.py").write_text(LOGGED_AGENT)
    config = json.loads((folder / "config.yaml").read_text())
    (folder / "programs").mkdir()
    (folder / "config.yaml").write_text(json.dumps({**config, "compiled": "programs/compiled.json"}))
    output("compile")
    text = output("demo")
    assert re.search(r"uncompiled +66\.7% .*\n.*\n? *compiled +66\.7%", text)
    assert re.search(r"models:/m-\w+ in sqlite:", text)
    asked = text.partition("/responses\n")[2]
    assert re.search(r"Is it\?\nyes\n.* tokens read, .* written, ", asked)
    assert "oneturn serve --model models:/m-" in asked
    assert not list(folder.rglob("demo.json"))


FAILURES = {
    "no agent file": (
        ("ask", "x", "--agent", "other.py"),
        "There is no {folder}/other.py. Run oneturn in the folder of your agent.py, or pass --agent PATH.",
    ),
    "a file without an agent": (
        ("ask", "x", "--agent", "empty.py"),
        "{folder}/empty.py declares no AGENT; set AGENT = oneturn.Agent(…) in it.",
    ),
    "not compiled": (
        ("evaluate",),
        "There is no compiled program {folder}/compiled.json. Create one with: oneturn compile",
    ),
    "no such recipe": (
        ("compile", "--recipe", "magic"),
        "There is no recipe 'magic'. Available recipes:\n  as_it_is  (no description)",
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
def test_error_is_one_line_with_code_1(case: str, folder: Path):
    (folder / "empty.py").write_text("")
    arguments, message = FAILURES[case]
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {message.format(folder=folder)}\n"


USAGE_ERRORS = {
    "no question": (("ask",), "Missing argument"),
    "invalid JSON": (("ask", "x", "--custom-inputs", "{"), "isn't JSON"),
    "not an object": (("ask", "x", "--custom-inputs", "[1]"), "must be a JSON object"),
    "no such split": (("evaluate", "--split", "all"), "Invalid value for '--split'"),
    "no rows": (("evaluate", "--limit", "0"), "Invalid value for '--limit'"),
    "an unknown kind of file": (("evaluate", "--output", "rows.txt"), "must end in .jsonl, .csv or .parquet"),
    "no port": (("serve", "--port", "70000"), "Invalid value for '--port'"),
    "too many arguments": (("query", "a", "b", "c"), "pass a URL and a question in quotes"),
    "no such command": (("fly",), "No such command 'fly'"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_usage_error_has_code_2(case: str):
    arguments, message = USAGE_ERRORS[case]
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(click.unstyle(result.stderr).split())


@pytest.mark.usefixtures("folder")
def test_evaluate_shows_the_first_message_of_each_kind_of_error():
    rows = [{"question": "Is it?", "answer": "yes"}, *({"question": "Is it?", "answer": [number]} for number in (1, 2))]
    Path("agent.py").write_text(
        Path("agent.py").read_text().replace("def is_right(example, prediction, trace=None):", _RAISING)
    )
    Path("mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = output("evaluate", "--uncompiled", "--data", "mine.jsonl")
    assert "Errors: 2 × TypeError" in text
    assert text.count("TypeError: the label [1] of [bold]one[/bold]") == 1


_RAISING = """def is_right(example, prediction, trace=None):
    if isinstance(example.answer, list):
        raise TypeError(f"the label {example.answer} of [bold]one[/bold]")"""


def test_schema_is_written_only_if_the_agent_can_be_loaded(folder: Path):
    path = folder / "schema.json"
    printed = output("data", "schema")
    output("data", "schema", "--output", str(path))
    assert json.loads(path.read_text()) == json.loads(printed)
    (folder / "agent.py").write_text("AGENT = None")
    assert run("data", "schema", "--output", str(path)).exit_code == 1
    assert json.loads(path.read_text()) == json.loads(printed)


def test_data_schema_keeps_columns_that_the_signature_lacks(folder: Path):
    path = folder / "schema.json"
    own = {
        "properties": {
            "id": {"type": "string"},
            "question": {"type": "string", "description": "What a customer writes."},
            "region": {"$ref": "#/$defs/Region"},
        },
        "required": ["id", "question", "region"],
        "additionalProperties": False,
        "$defs": {"Region": {"enum": ["north", "south"]}},
    }
    path.write_text(json.dumps(own))
    assert "no such field: region. Remove" in output("data", "schema", "--output", str(path))
    written = json.loads(path.read_text())
    assert written["properties"]["region"] == {"$ref": "#/$defs/Region"}
    assert written["properties"]["question"]["description"]
    assert "answer" in written["properties"]
    assert {"id", "question", "region"} <= set(written["required"])
    assert (written["additionalProperties"], written["$defs"]["Region"]) == (False, own["$defs"]["Region"])


_OTHER_INPUT = """
import dspy, oneturn
from oneturn.testing import ScriptedLM, finish

def build():
    program = oneturn.ReAct("question, employee: int -> answer", tools=[])
    program.set_lm(ScriptedLM(*[finish(answer="yes")] * 99))
    return program

AGENT = oneturn.Agent("tiny", oneturn.AgentConfig.read({}), build, lambda *_: 1.0)
"""


def test_missing_custom_input_names_the_option(folder: Path):
    (folder / "agent.py").write_text(_OTHER_INPUT)
    hint = """Pass --custom-inputs '{"employee": …}'."""
    assert hint in run("ask", "Is it?").output
    assert output("ask", "Is it?", "--custom-inputs", '{"employee": 1}').strip().startswith("yes")
    with oneturn.running_server(oneturn.ResponsesAdapter(oneturn.load_agent().build())) as url:
        assert hint in run("query", url, "Is it?").output
        refused = run("check", url)
        assert refused.exit_code == 1
        assert """requires the input employee besides a question: pass --request FILE""" in refused.output
        assert """{"custom_inputs": {"employee": …}}""" in refused.output
        Path("request.json").write_text('{"custom_inputs": {"employee": 1}}')
        assert "besides a question" not in run("check", url, "--request", "request.json", "--concurrency", "0").output
