"""``oneturn new`` writes a project that runs as it is; ``test_wheel.py`` does everything else with each kind."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.config import AgentConfig
from oneturn.errors import ConfigError
from oneturn.lm.providers import LM_CHOICES
from oneturn.scaffold import KINDS, wrap_module, write_project
from oneturn.scaffold.requirement import requirement
from tests.scaffold.stub import MODULE, ROW

ENGINE = Path(oneturn.__file__).parents[1]


def python(folder: Path, *words: str) -> str:
    """Run Python in a project's folder with this oneturn; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if "MLFLOW" not in name and "DATABRICKS" not in name}
    environment = {
        **inherited,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(ENGINE),
        "OPENAI_API_KEY": "none",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    for name in ("ONETURN_CONFIG", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_project_passes_its_tests(kind: str, tmp_path: Path):
    folder = tmp_path / "mine"
    write_project(folder, "mine", kind=kind, lm="openai/gpt-4o-mini")
    assert " passed" in python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.parametrize("source", ["faq:program", "faq:Faq", "faq:metric"])
def test_module_of_ones_own_is_wrapped(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "faq.py").write_text(MODULE + "metric = program  # a name that agent.py has\n")
    (tmp_path / "README.md").write_text("mine")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "faq", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["new", "mine", "--from", source, "--lm", "openai/gpt-4o-mini"])
    monkeypatch.delitem(sys.modules, "faq", raising=False)
    assert result.exit_code == 0, result.output
    assert "README.md exists and stays as it is" in result.output
    assert (tmp_path / "README.md").read_text() == "mine"
    schema = json.loads((tmp_path / "data" / "examples" / "schema.json").read_text())
    assert list(schema["properties"]) == ["id", "question", "language", "answer", "sure"]
    assert schema["required"] == ["question", "language"]
    (tmp_path / "data" / "examples" / "train.jsonl").write_text(json.dumps(ROW) + "\n")
    assert "3 passed" in python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("faq", "should be MODULE:NAME"),
        ("nowhere:program", "nowhere:program can't be imported: No module named 'nowhere'"),
        ("json:loads", "json isn't in"),
        ("other:number", "other:number is NoneType; it should be a dspy.Module"),
        ("other:build", "other:build can't be called without arguments: missing a required argument: 'size'. Write"),
    ],
)
def test_source_that_is_no_module_is_an_error(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "other.py").write_text("number = 3\ndef build(size): return 3")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "other", raising=False)
    with pytest.raises(ConfigError, match=message):
        wrap_module(tmp_path, "mine", source, lm="openai/x")
    monkeypatch.delitem(sys.modules, "other", raising=False)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["other.py"]


def test_requirement_names_the_origin_of_oneturn():
    assert requirement("1.2", None) == "oneturn==1.2"
    assert requirement("1.2", {"url": "file:///w/oneturn-1.2-py3-none-any.whl", "archive_info": {}}, ["local"]) == (
        "oneturn[local] @ file:///w/oneturn-1.2-py3-none-any.whl"
    )
    assert requirement("1.2", {"url": "file:///src", "dir_info": {"editable": True}}) == "oneturn @ file:///src"
    git = {"url": "https://host/repo.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "engine"}
    assert requirement("1.2", git, ["notebooks", "local"]) == (
        "oneturn[local,notebooks] @ git+https://host/repo.git@abc#subdirectory=engine"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lm", [*(choice.default for choice in LM_CHOICES), "groq/llama-3.3-70b"])
def test_configurations_are_valid_for_each_lm(kind: str, lm: str, tmp_path: Path):
    write_project(tmp_path, "mine", kind=kind, lm=lm)
    dev, prod = (AgentConfig.read(tmp_path / "configs" / name) for name in ("dev.yaml", "prod.yaml"))
    assert dev.lm.model == lm
    assert prod.lm.is_workspace
    assert prod.mlflow.model_name == "main.agents.mine"
    yaml.safe_load((tmp_path / "databricks.yml").read_text(encoding="utf-8"))
    yaml.safe_load((tmp_path / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    for path in tmp_path.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"))


def test_production_does_not_use_the_server_of_development(tmp_path: Path):
    write_project(tmp_path, "mine", kind="react", lm="openai/x")
    path = tmp_path / "configs" / "dev.yaml"
    keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys["lm"] |= {"api_base": "http://127.0.0.1:9/v1", "api_key_env": "MY_KEY"}
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    prod = AgentConfig.read(tmp_path / "configs" / "prod.yaml")
    assert (prod.lm.api_base, prod.lm.api_key_env, prod.lm.is_workspace) == (None, None, True)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_ask_passes_a_question_and_other_inputs_on_as_they_are(tmp_path: Path):
    write_project(tmp_path, "mine", kind="react", lm="openai/x")
    stand_in = tmp_path / ".venv" / "bin" / "oneturn"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stand_in.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def asked(*words: str) -> list[str]:
        # Where the tests themselves run under make, its variables would make this one print the folders it enters.
        of_make = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}
        environment = {name: value for name, value in os.environ.items() if name not in of_make}
        done = subprocess.run(
            ["make", "-s", "ask", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        arguments: list[str] = json.loads(done.stdout)
        return arguments

    assert asked() == ["ask", "What is the daily rate in Paris?"]
    tricky = 'Is "it" $5, `date` or $HOME\'s # \\n?'
    assert asked(f"Q={tricky}") == ["ask", tricky]
    inputs = '{"employee": 1, "day": "it\'s $5"}'
    assert asked("Q=Why?", f"INPUTS={inputs}") == ["ask", "Why?", "--custom-inputs", inputs]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_make_setup_installs_with_uv_if_there_is_one(tool: str, tmp_path: Path):
    write_project(tmp_path, "mine", kind="react", lm="openai/x")
    calls = tmp_path / "calls"
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name in ("make", "touch", "sh"):
        (stand_ins / name).symlink_to(str(shutil.which(name)))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for path in (stand_ins / tool, stand_ins / "python3", tmp_path / ".venv" / "bin" / "pip"):
        path.write_text(f'#!{shutil.which("sh")}\necho "{path.name} $*" >> {calls}\n')
        path.chmod(0o755)
    of_make = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in of_make} | {"PATH": str(stand_ins)}
    subprocess.run([stand_ins / "make", "-s", "setup"], cwd=tmp_path, env=environment, check=True)
    assert (
        calls.read_text().splitlines()
        == {
            "uv": [
                "uv venv -q --seed --allow-existing --python python3 .venv",
                "uv pip install -q --python .venv -e .[dev]",
            ],
            "pip": ["python3 -m venv .venv", "pip install -q -e .[dev]"],
        }[tool]
    )


@pytest.mark.parametrize("name", ["on", "null", "class"])
def test_a_name_may_be_a_word_of_yaml_or_python(name: str, tmp_path: Path):
    write_project(tmp_path, name, kind="extract", lm="openai/x")
    assert AgentConfig.read(tmp_path / "configs" / "dev.yaml").mlflow.experiment == name
    assert yaml.safe_load((tmp_path / "databricks.yml").read_text())["bundle"]["name"] == name


@pytest.mark.parametrize("kind", KINDS)
def test_project_has_ten_examples_three_passages_and_three_notebooks(kind: str, tmp_path: Path):
    write_project(tmp_path, "mine", kind=kind, lm="openai/x")
    rows = [line for path in tmp_path.glob("data/examples/*.jsonl") for line in path.read_text().splitlines()]
    assert len(rows) == 10
    assert len(list(tmp_path.glob("data/passages/*.md"))) == 3
    assert len(list(tmp_path.glob("notebooks/*.ipynb"))) == 3


def test_nothing_is_overwritten(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"README\.md exists, and nothing is overwritten"):
        write_project(tmp_path, "mine", kind="react", lm="openai/x")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path):
    (tmp_path / "mine").write_text("notes")
    with pytest.raises(ConfigError, match=r"can't be written: .*\. Choose another name or folder"):
        write_project(tmp_path / "mine", "mine", kind="react", lm="openai/x")
    assert (tmp_path / "mine").read_text() == "notes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "My-Agent"}, "'My-Agent' should be lower-case letters"),
        ({"name": "mine_"}, "'mine_' should be lower-case letters, digits, and _ between them"),
        ({"name": "oneturn"}, "'oneturn' is that of a package that the project requires"),
        ({"name": "mlflow"}, "'mlflow' is that of a package that the project requires"),
        ({"kind": "chat"}, "no kind 'chat'; the kinds are react, extract"),
        ({"lm": "gpt-4o"}, "'gpt-4o' should name the provider"),
    ],
)
def test_wrong_choice_is_an_error(change: dict[str, str], message: str, tmp_path: Path):
    choices = {"name": "mine", "kind": "react", "lm": "openai/x"} | change
    with pytest.raises(ConfigError, match=message):
        write_project(tmp_path, **choices)
    assert not list(tmp_path.iterdir())


def test_command_without_a_terminal_needs_the_lm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["new", "mine"])
    assert result.exit_code == 2
    assert "databricks/" in result.output
    assert not list(tmp_path.iterdir())


def test_command_at_a_terminal_asks_for_the_lm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("oneturn.cli.new._is_terminal", lambda: True)
    result = CliRunner().invoke(app, ["new", "mine", "--kind", "extract"], input="9\n3\nollama_chat/mistral\n")
    assert result.exit_code == 0, result.output
    assert AgentConfig.read(tmp_path / "mine" / "configs" / "dev.yaml").lm.model == "ollama_chat/mistral"
