"""Walk a new user's first hour with the wheel of this checkout, in an environment with nothing else.

    python -m tests.scaffold.wheel_walk
    python -m tests.scaffold.wheel_walk --python 3.13 --kinds react --folder /tmp/walk

It builds the wheel, installs it into a fresh environment, and makes a project of each kind in an empty folder. Each
project runs its tests, ``doctor``, ``ask``, ``data check``, ``log``, ``promote``, ``compile``, ``evaluate`` with a
report, ``serve``, ``query``, and its notebooks; then its second version is logged and promoted. The LM is a stub on a
loopback port. The first step that fails ends the walk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.databricks.stub_lm import stub_lm
from tests.scaffold import stub

ROOT = Path(__file__).resolve().parents[2]
STEPS = Path(__file__).parent / "walk.py"
NAMES = {"react": "hr", "extract": "invoices", "from": "faq"}
QUESTIONS = stub.QUESTIONS | {"from": str(stub.ROW["question"])}
ANSWERS = {"react": "48 euros", "extract": "Stahl AG", "from": "So."}
INPUTS = {"from": ["--custom-inputs", '{"language": "en"}']}
_PRIVATE = ("MLFLOW", "DATABRICKS", "ONETURN", "PYTHONPATH", "PYTEST", "VIRTUAL_ENV")


class Walk:
    """A fresh environment with the wheel, and the projects made with it.

    Args:
        folder: an empty folder for all of it.
        python: the version or the path of the environment's Python.
    """

    def __init__(self, folder: Path, python: str):
        self.folder = folder
        self._python = python
        self.bin = folder / "env" / "bin"
        private = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_COLOR": "1"}
        self._environment = private | quiet | {"OPENAI_API_KEY": "none", "COLUMNS": "160"}

    def install(self) -> None:
        """Build the wheel and install it, at the pinned versions, with what a project's tests and notebooks need."""
        self._uv("build", "--wheel", "--out-dir", str(self.folder / "dist"), str(ROOT))
        (self.wheel,) = (self.folder / "dist").glob("*.whl")
        self._uv("venv", "--python", self._python, str(self.folder / "env"))
        packages = [f"oneturn[notebooks] @ {self.wheel.as_uri()}", "pytest"]
        pinned = ["--python", str(self.bin / "python"), "-c", str(ROOT / "constraints.txt")]
        self._uv("pip", "install", *pinned, *packages)

    def walk(self, kind: str) -> None:
        """Make a project of a kind and use everything in it."""
        name, question = NAMES[kind], [QUESTIONS[kind], *INPUTS.get(kind, [])]
        project = self._new(kind, name)
        tests = self.run("pytest", "-q", "-p", "no:cacheprovider", folder=project)
        require(" passed" in tests and "failed" not in tests, tests)
        with stub_lm(stub.step) as url:
            stub.use_stub(project, url)
            first = [["doctor"], ["data", "check"], ["ask", *question], ["log", "--register"], ["promote"], ["compile"]]
            self._steps(project, first, "The agent can run.", ANSWERS[kind], f"Version 1 of {name} is the champion now")
            stub.use_compiled(project, name)
            require((project / "data" / "compiled" / f"{name}.json").is_file(), "there is no compiled program")
            evaluate = ["evaluate", "--report", "report.html"]
            notebooks = [["notebook", path.stem] for path in sorted((project / "notebooks").glob("*.ipynb"))]
            promote = ["promote", "--force", "--reason", "the second version"]
            self._steps(
                project,
                [["diff", f"data/compiled/{name}.json"], evaluate, ["log", "--register"], promote, *notebooks],
                f"Version 2 of {name} is the champion now",
            )
            require("<html" in (project / "report.html").read_text(encoding="utf-8"), "the report is no page")
            with self._served(project) as address:
                answer = self.run("oneturn", "query", address, *question, folder=project)
            require(ANSWERS[kind] in answer, answer)

    def _new(self, kind: str, name: str) -> Path:
        project = self.folder / name
        words = ["new", name, "--lm", "openai/gpt-4o-mini"]
        if kind == "from":
            project.mkdir()
            (project / "faq_module.py").write_text(stub.MODULE, encoding="utf-8")
            self.run("oneturn", *words, "--from", "faq_module:program", folder=project)
            stub.write_examples(project)
        else:
            self.run("oneturn", *words, "--kind", kind)
        declared = (project / "pyproject.toml").read_text(encoding="utf-8")
        require(f'"oneturn[notebooks] @ {self.wheel.as_uri()}"' in declared, f"the wheel isn't in:\n{declared}")
        return project

    def _steps(self, project: Path, steps: list[list[str]], *expected: str) -> None:
        output = self.run("python", str(STEPS), *map(json.dumps, steps), folder=project)
        for text in expected:
            require(text in output, f"{text!r} isn't in:\n{output}")

    @contextmanager
    def _served(self, project: Path) -> Iterator[str]:
        """Serve the project; gives its address, as a person would type it."""
        command = [str(self.bin / "oneturn"), "serve", "--port", "0"]
        with subprocess.Popen(
            command, cwd=project, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as server:
            try:
                assert server.stdout is not None
                lines = []
                for line in server.stdout:
                    lines.append(line)
                    if "http://127.0.0.1:" in line:
                        break
                require("http://127.0.0.1:" in "".join(lines[-1:]), "".join(lines))
                yield lines[-1].partition("http://")[2].split("/")[0].split()[0]
            finally:
                server.terminate()

    def run(self, program: str, *words: str, folder: Path | None = None) -> str:
        """Run a program of the environment and return its output.

        Raises:
            SystemExit: it failed.
        """
        command = [str(self.bin / program), *words]
        started = time.monotonic()
        done = subprocess.run(
            command, cwd=folder or self.folder, env=self._environment, capture_output=True, text=True, check=False
        )
        shown = " ".join(words) if program == "oneturn" else program
        print(f"  {time.monotonic() - started:5.1f} s  {shown:.100}", flush=True)
        require(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _uv(self, *words: str) -> None:
        environment = {**self._environment, "UV_PYTHON_DOWNLOADS": "never"}
        subprocess.run([sys.executable, "-m", "uv", "-q", *words], env=environment, check=True)


def require(condition: bool, reason: str) -> None:
    """End the walk with a reason unless a condition holds."""
    if not condition:
        raise SystemExit(reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """Walk the kinds, one after another; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, metavar="VERSION", help="default: this one")
    parser.add_argument("--kinds", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--folder", type=Path, metavar="PATH", help="an empty folder that is kept")
    options = parser.parse_args(arguments)
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="walk-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        walk = Walk(folder, options.python)
        walk.install()
        print(f"installed the wheel after {time.monotonic() - started:.0f} s", flush=True)
        for kind in options.kinds:
            print(f"oneturn new {NAMES[kind]}: {kind}", flush=True)
            walk.walk(kind)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    print(f"walked in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
