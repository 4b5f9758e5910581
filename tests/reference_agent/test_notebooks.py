"""The notebooks run unchanged on the smaller embedded LM, and show what they did when they last ran."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from tests.reference_agent.notebook_outputs import MAX_BYTES, NOTEBOOKS, ROOT, read, sources_hash, write


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_the_outputs_of_its_cells(path: Path):
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("text/html" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert notebook.metadata["oneturn"]["sources"] == sources_hash(notebook), "run `make notebooks WRITE=1`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_place_of_the_machine_that_ran_it(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MAX_BYTES
    assert not re.search(r"/(tmp|home|root|Users)/", text)


@pytest.mark.notebooks
@pytest.mark.xdist_group("notebooks")  # one after another: the embedded LM uses all cores
def test_compile_and_log(run):
    demos, rows, recipe, answer = run(
        "compile_and_log",
        "len(compilation.candidates[-1].program.step.demos)",
        "len(compilation.after.rows)",
        "mlflow.get_run(logged.run_id).data.params['recipe']",
        "answer",
    )
    assert (demos, rows) == ("6", "4")
    assert recipe == "'scripted'", "the compiled program is the logged one"
    assert len(answer) > len("''")


@pytest.mark.notebooks
@pytest.mark.xdist_group("notebooks")  # one after another: the embedded LM uses all cores
def test_batch_evaluation(run):
    rows, written, score = run(
        "batch_evaluation", "len(evaluation.rows)", "page.is_file()", "0 <= evaluation.score <= 1"
    )
    assert (rows, written, score) == ("6", "True", "True")


@pytest.mark.notebooks
@pytest.mark.xdist_group("notebooks")  # one after another: the embedded LM uses all cores
def test_query_endpoint(run):
    same, ways, streamed = run("query_endpoint", "same", "len(answers)", "len(deltas) > 1")
    assert (same, ways, streamed) == ("True", "4", "True")


@pytest.mark.notebooks
@pytest.mark.xdist_group("notebooks")  # one after another: the embedded LM uses all cores
def test_wrap_your_program(run):
    queue, rows = run("wrap_your_program", "reply.custom_outputs['queue']", "evaluation.rows['error'].notna().sum()")
    assert queue in ("'repair'", "'order'", "'other'")
    assert rows.endswith("0)") or rows == "0"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Run a notebook with its MLflow store and files in a temporary folder; return the values of expressions."""
    config = yaml.safe_load((ROOT / "configs" / "dev.yaml").read_text(encoding="utf-8"))
    config["mlflow"]["tracking_uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    if not request.config.getoption("--write-notebooks"):
        config["lm"]["model"] = "local/0.5B"  # a third of the time; what it answers isn't tested
        config["thoughts"] = False  # its thoughts can run into the token limit, so that there is no answer
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.setenv("ONETURN_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("ONETURN_NOTEBOOK_OUTPUT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")

    def execute(name: str, *expressions: str) -> list[str]:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        notebook = read(path)
        notebook.cells += [nbformat.v4.new_code_cell(expression) for expression in expressions]
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
        if request.config.getoption("--write-notebooks"):
            write(path, notebook, {f"{tmp_path}/": ""})
        last = notebook.cells[-len(expressions) :]
        return [cell.outputs[-1]["data"]["text/plain"] for cell in last]

    return execute
