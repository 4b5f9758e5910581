"""The notebooks run unchanged on the embedded LM, and are committed without outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.notebooks
def test_compile_and_log(run):
    demos, rows, recipe, answer = run(
        "compile_and_log",
        "len(compilation.program.step.demos)",
        "len(compilation.after.rows)",
        "mlflow.get_run(logged.run_id).data.params['recipe']",
        "answer",
    )
    assert (demos, rows) == ("6", "4")
    assert recipe == "'scripted'", "the compiled program is the logged one"
    assert len(answer) > len("''")


@pytest.mark.notebooks
def test_batch_evaluation(run):
    rows, written, score = run(
        "batch_evaluation", "len(evaluation.rows)", "page.is_file()", "0 <= evaluation.score <= 1"
    )
    assert (rows, written, score) == ("6", "True", "True")


@pytest.mark.notebooks
def test_query_endpoint(run):
    same, ways, streamed = run("query_endpoint", "same", "len(answers)", "len(deltas) > 1")
    assert (same, ways, streamed) == ("True", "4", "True")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a notebook with its MLflow store and files in a temporary folder; return the values of expressions."""
    config = yaml.safe_load((ROOT / "configs" / "dev.yaml").read_text(encoding="utf-8"))
    config["mlflow"]["tracking_uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.setenv("ONETURN_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("ONETURN_NOTEBOOK_OUTPUT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")

    def execute(name: str, *expressions: str) -> list[str]:
        notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
        notebook.cells += [nbformat.v4.new_code_cell(expression) for expression in expressions]
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
        last = notebook.cells[-len(expressions) :]
        return [cell.outputs[-1]["data"]["text/plain"] for cell in last]

    return execute


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)
