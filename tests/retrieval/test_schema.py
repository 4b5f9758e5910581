"""The retriever schema in a logged model."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.models import Model

CODE = """
import mlflow
import oneturn
from oneturn.testing import ScriptedLM, call, finish

documents = lambda: [mlflow.entities.Document("Port 443.", {"doc_uri": "net.md"}, id="net")]
RETRIEVER = oneturn.build_retriever(oneturn.AgentConfig.read({}), documents)

def program():
    agent = oneturn.ReAct("question -> answer", tools=[RETRIEVER.search])
    agent.set_lm(ScriptedLM(call("search", query="port"), finish(answer="443")))
    return agent

mlflow.models.set_model(oneturn.ResponsesAdapter(program))
"""


def test_a_logged_model_has_the_schema(tmp_path: Path):
    (tmp_path / "agent.py").write_text(CODE)
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"),
        python_model=str(tmp_path / "agent.py"),
        model_config={"max_iters": 3},
        input_example={"input": [{"role": "user", "content": "Which port?"}]},
        pip_requirements=["mlflow"],
    )
    schemas = Model.load(str(tmp_path / "model")).metadata["dependencies_schemas"]["retrievers"]
    by_name = {schema.pop("name"): schema for schema in schemas}  # MLflow collects them process-wide
    assert by_name["retriever"] == {
        "primary_key": "id",
        "text_column": "page_content",
        "doc_uri": "doc_uri",
        "other_columns": ["title"],
    }
