"""A logged agent carries what it needs: seen in a process that can't import the agent's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import oneturn
from oneturn.deployment.completeness import _SCRIPT as SCRIPT
from oneturn.deployment.completeness import missing_files, missing_modules
from oneturn.deployment.doctor.program import carried_code
from oneturn.errors import ProgramError

AGENT = '''
from pathlib import Path
import dspy, mlflow, oneturn
from oneturn.testing import ScriptedLM, call, finish
import {parts}
{top}
HERE = Path(__file__).parent
CONFIG = oneturn.AgentConfig.read("config.yaml", root=Path({parts}.__file__).parents[1])
def tool(x: int) -> str:
    """T."""
    {lazy}
    return "ok"
class Scripted(oneturn.Agent):
    def lm(self):
        return ScriptedLM(*[reply for _ in range(20) for reply in (call("tool", x=1), finish(answer="open"))])
AGENT = Scripted(
    name="desk", config=CONFIG, build=lambda: oneturn.ReAct("question -> answer", tools=[tool]),
    metric=lambda e, p, trace=None: True, examples=lambda split: [], recipes={{}},
    root=Path({parts}.__file__).parents[1], code_paths=("{parts}",), example_questions=("Is it open?",),
)
mlflow.models.set_model(AGENT.adapter())
'''
RUN = "from oneturn.cli import app; app()"


def write_agent(folder: Path, parts: str, top: str = "", lazy: str = "") -> Path:
    """An agent that carries the package ``parts`` and whose folder also has ``helpers_*.py`` and ``prompts.txt``."""
    (folder / parts).mkdir(parents=True)
    (folder / parts / "__init__.py").write_text("")
    (folder / f"helpers_{parts}.py").write_text("GREETING = 'hello'\n")
    (folder / "prompts.txt").write_text("Be brief.")
    lines = [
        "lm: {model: openai/stub}",
        f"mlflow: {{tracking_uri: 'sqlite:///{folder.parent}/t.db', model_name: desk}}",
    ]
    (folder / "config.yaml").write_text("\n".join(lines))
    (folder / "agent.py").write_text(AGENT.format(parts=parts, top=top, lazy=lazy))
    return folder


def log(agent: Path) -> subprocess.CompletedProcess[str]:
    """Run ``oneturn log`` in the agent's folder, which PYTHONPATH names, too."""
    path = os.pathsep.join([str(Path(oneturn.__file__).parents[1]), str(agent)])
    environment = {**os.environ, "PYTHONPATH": path, "ONETURN_CONFIG": "config.yaml"}
    command = [sys.executable, "-c", RUN, "log"]
    return subprocess.run(command, cwd=agent, env=environment, capture_output=True, text=True, timeout=300)


def test_a_complete_agent_is_logged(tmp_path: Path):
    run = log(write_agent(tmp_path / "desk", "parts"))
    assert run.returncode == 0, run.stderr
    assert "Logged models:/" in run.stdout


@pytest.mark.parametrize(
    ("parts", "top", "lazy", "line"),
    [
        ("top_parts", "import helpers_top_parts", "", 6),
        ("lazy_parts", "", "from helpers_lazy_parts import GREETING", 11),
    ],
)
def test_an_import_that_the_model_does_not_carry_is_named(tmp_path: Path, parts: str, top: str, lazy: str, line: int):
    agent = oneturn.load_agent(write_agent(tmp_path / "desk", parts, top, lazy) / "agent.py")
    with pytest.raises(ProgramError, match=rf"helpers_{parts} \(agent\.py, line {line}\) isn't logged"):
        oneturn.log_model(agent)


@pytest.mark.parametrize(
    ("top", "lazy", "names"),
    [
        ("open({file!r}).close(); {module}", "", ["the module helpers_parts", "the file prompts.txt"]),
        ("", "open({file!r}).close(); {module}", ["the module helpers_parts", "the file prompts.txt"]),
        ("(Path(__file__).parent / 'prompts.txt').read_text()", "", ["the file prompts.txt, which code_paths doesn't"]),
        (
            "",
            "(Path(parts.__file__).parents[1] / 'prompts.txt').read_text()",
            ["the file prompts.txt, which"],
        ),
    ],
    ids=["when loaded", "when answering", "beside agent.py", "beside a carried folder"],
)
def test_what_only_a_run_shows_is_named(tmp_path: Path, top: str, lazy: str, names: list[str]):
    folder = tmp_path / "desk"
    named = {
        "file": str(folder / "prompts.txt"),
        "module": "import importlib; importlib.import_module('helpers_parts')",
    }
    run = log(write_agent(folder, "parts", top.format(**named), lazy.format(**named)))
    assert run.returncode == 1
    error = " ".join(run.stderr.split())
    assert [name for name in names if name not in error] == []
    assert "Logged" not in run.stdout
    assert "Traceback" not in run.stderr
    assert "WARNING mlflow" not in run.stderr


def test_doctor_names_it_without_logging(tmp_path: Path):
    folder = write_agent(tmp_path, "doctor_parts", lazy="import helpers_doctor_parts; HERE / 'prompts.txt'")
    findings = list(carried_code(oneturn.load_agent(folder / "agent.py")))
    assert [finding.severity.value for finding in findings] == ["error", "warning"]
    assert "helpers_doctor_parts (agent.py, line 11)" in findings[0].message
    assert "prompts.txt (agent.py, line 11)" in findings[1].message


def test_optional_imports_may_be_missing(tmp_path: Path):
    optional = "try:\n    import helpers_optional_parts\nexcept ImportError:\n    pass"
    agent = oneturn.load_agent(write_agent(tmp_path, "optional_parts", top=optional) / "agent.py")
    assert (missing_modules(agent), missing_files(agent)) == ([], [])


EDITABLE = """
import sys
from importlib.machinery import PathFinder

MAPPING = {mapping!r}


class _EditableFinder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return PathFinder.find_spec(name, [MAPPING[name]]) if name in MAPPING else None


def install():
    sys.meta_path.append(_EditableFinder)
"""
HIDE = """
import importlib.util, runpy, site, sys
from pathlib import Path

site.addsitedir({site!r})
script = runpy.run_path({script!r}, run_name="script")

def look(name):
    print(name, "found" if importlib.util.find_spec(name) else "gone")

look("helpers_hidden")
script["_hide"](Path({root!r}).resolve())
look("helpers_hidden")
look("shared_helpers")
"""


LOOK = """
import sqlite3
ROOT = Path(parts.__file__).parents[1]
FOUND = [list((ROOT / "passages").glob("*.md")), (ROOT / "prompts.txt").exists(), Path("relative.txt").is_file()]
sqlite3.connect(ROOT / "orders.db").close()
"""


def test_what_is_looked_for_without_being_opened_is_named(tmp_path: Path):
    agent = write_agent(tmp_path / "desk", "parts", LOOK)
    (agent / "passages").mkdir()
    (agent / "passages" / "fees.md").write_text("4 euros")
    for name in ("orders.db", "relative.txt"):
        (agent / name).write_text("")
    run = log(agent)
    assert run.returncode == 1
    for name in ("passages/", "prompts.txt", "relative.txt", "orders.db"):
        assert f"the file {name}" in " ".join(run.stderr.split())


def test_a_module_of_a_folder_without_init_is_named(tmp_path: Path):
    agent = write_agent(tmp_path / "desk", "parts", lazy="from spaced.deep import module")
    (agent / "spaced" / "deep").mkdir(parents=True)
    (agent / "spaced" / "deep" / "module.py").write_text("")
    assert missing_modules(oneturn.load_agent(agent / "agent.py")) == ["spaced (agent.py, line 11)"]


@pytest.mark.parametrize("way", ["PYTHONPATH", ".pth", "editable"])
def test_the_agent_s_folder_is_hidden_however_it_came_onto_the_path(way: str, tmp_path: Path):
    root, site = tmp_path / "desk", tmp_path / "site"
    root.mkdir()
    site.mkdir()
    (root / "helpers_hidden.py").write_text("")
    (tmp_path / "shared_helpers.py").write_text("")  # of another folder: still there
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = [str(tmp_path)]
    if way == "PYTHONPATH":
        paths.append(str(root))
    elif way == ".pth":
        (site / "desk.pth").write_text(f"{root}\n")
    else:  # as setuptools writes it for a package whose folder isn't that of its distribution
        (site / "__editable___desk_finder.py").write_text(EDITABLE.format(mapping={"helpers_hidden": str(root)}))
        (site / "desk.pth").write_text("import __editable___desk_finder; __editable___desk_finder.install()\n")
    code = HIDE.format(site=str(site), root=str(root), script=str(SCRIPT))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["helpers_hidden", "found", "helpers_hidden", "gone", "shared_helpers", "found"], run
