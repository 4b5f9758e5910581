"""The schema of what is found, in a logged model, for readers that look for it there."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.models import Model

CODE = """
import mlflow
import oneturn
from oneturn.testing import ScriptedLM, call, finish

documents = lambda: [mlflow.entities.Document("Port 443.", {"doc_uri": "net.md"}, id="net")]
FOUND = oneturn.build_retriever(oneturn.AgentConfig.read({}), documents)

def program():
    made = oneturn.ReAct("question -> answer", tools=[FOUND.search])
    made.set_lm(ScriptedLM(call("search", query="port"), finish(answer="443")))
    return made

mlflow.models.set_model(oneturn.ResponsesAdapter(program))
"""


def test_a_logged_model_holds_it(tmp_path: Path):
    (tmp_path / "agent.py").write_text(CODE)
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"),
        python_model=str(tmp_path / "agent.py"),
        model_config={"max_iters": 3},
        input_example={"input": [{"role": "user", "content": "Which port?"}]},
        pip_requirements=["mlflow"],
    )
    kept = Model.load(str(tmp_path / "model")).metadata["dependencies_schemas"]["retrievers"]
    by_name = {schema.pop("name"): schema for schema in kept}  # MLflow keeps those of the whole process
    assert by_name["retriever"] == {
        "primary_key": "id",
        "text_column": "page_content",
        "doc_uri": "doc_uri",
        "other_columns": ["title"],
    }
