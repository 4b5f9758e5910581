"""An index of Databricks Vector Search as a retriever: the real SDK against the fake workspace."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import dspy
import mlflow
import pytest
from databricks.sdk.service.vectorsearch import (
    ColumnInfo,
    QueryVectorIndexResponse,
    ResultData,
    ResultManifest,
    VectorSearchIndexesAPI,
)
from mlflow.entities import SpanType

import oneturn
from oneturn.config import AgentConfig
from oneturn.core.run_context import RunContext
from oneturn.deployment.resources import resources_of, scopes_of
from oneturn.errors import ConfigError, ToolError
from oneturn.testing import ScriptedLM, call, finish
from tests.databricks.workspace import Call, Workspace, refused, signed_in

INDEX = "main.shop.handbook"
PATH = f"/api/2.0/vector-search/indexes/{INDEX}"
KEYS = {
    "kind": "databricks",
    "index": INDEX,
    "text_column": "chunk",
    "primary_key": "chunk_id",
    "doc_uri": "url",
    "k": 2,
}
ROWS: list[dict[str, Any]] = [
    {"chunk_id": "c1", "chunk": "Port 443.", "url": "https://example.com/network", "year": 2024.0},
    {"chunk_id": "c2", "chunk": "Port 80.", "url": None, "year": None},
]


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with signed_in(monkeypatch) as fake:
        fake.on("POST", f"{PATH}/query", answer)
        yield fake


def answer(request: Call) -> dict[str, Any]:
    """The requested columns in reverse order, and the score."""
    unknown = request.body.keys() - inspect.signature(VectorSearchIndexesAPI.query_index).parameters.keys()
    assert not unknown, unknown
    names = [*reversed(request.body["columns"]), "score"]
    rows = [[row.get(name, 0.9) for name in names] for row in ROWS[: request.body["num_results"]]]
    manifest = ResultManifest(len(names), [ColumnInfo(name) for name in names])
    return QueryVectorIndexResponse(manifest=manifest, result=ResultData(rows, len(rows))).as_dict()


def retriever(**keys: Any) -> oneturn.Retriever:
    return oneturn.build_retriever(AgentConfig.read({"retriever": {**KEYS, **keys}}))


def sent(workspace: Workspace) -> dict[str, Any]:
    body: dict[str, Any] = workspace.asked("POST", f"{PATH}/query")[-1].body
    return body


def test_rows_are_documents_by_the_names_of_their_columns(workspace: Workspace):
    first, second = retriever(columns=["year"]).search("which port?")
    assert (first.id, first.page_content) == ("c1", "Port 443.")
    assert first.metadata == {"doc_uri": "https://example.com/network", "year": 2024.0, "score": 0.9}
    assert second.metadata == {"score": 0.9}, "null values are left out"
    assert sent(workspace) == {
        "columns": ["chunk_id", "chunk", "url", "year"],
        "num_results": 2,
        "query_text": "which port?",
        "query_type": "ANN",
    }


def test_filters_and_hybrid_search_are_passed_on(workspace: Workspace):
    retriever(query_type="hybrid", filters={"year >=": 2024, "language": "en"}).search("which port?")
    assert sent(workspace)["query_type"] == "HYBRID"
    assert sent(workspace)["filters_json"] == '{"year >=": 2024, "language": "en"}'


def test_building_and_copying_send_no_request(workspace: Workspace):
    index = retriever()
    assert copy.deepcopy(index) is index
    assert index.search(" ") == []
    assert workspace.calls == []


def test_the_primary_key_is_requested_once(workspace: Workspace):
    workspace.on("GET", PATH, lambda request: {"name": INDEX, "primary_key": "chunk_id"})
    index = retriever(primary_key=None)
    assert [document.id for _ in range(2) for document in index.search("port")] == ["c1", "c2"] * 2
    assert len(workspace.asked("GET", PATH)) == 1


@pytest.mark.parametrize(("query_type", "with_text"), [("ann", False), ("hybrid", True)])
def test_self_managed_embeddings_are_queried_by_vector(workspace: Workspace, query_type: str, with_text: bool):
    def embed(request: Call) -> Any:
        assert request.body["model"] == "embedder"
        return {"object": "list", "data": [{"index": 0, "embedding": [3.0, 4.0]}], "model": "embedder"}

    workspace.on("POST", "/serving-endpoints/embeddings", embed)
    retriever(embeddings="databricks/embedder", query_type=query_type).search("port")
    assert sent(workspace)["query_vector"] == pytest.approx([0.6, 0.8])
    assert ("query_text" in sent(workspace)) == with_text


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (refused(404, "RESOURCE_DOES_NOT_EXIST", "Index main.shop.handbook does not exist."), "does not exist"),
        (refused(403, "PERMISSION_DENIED", "No SELECT.\nat line 7"), "No SELECT."),
        (refused(400, "BAD_REQUEST", "Column urll not found."), "Column urll not found."),
    ],
)
def test_an_error_response_is_one_line_for_the_agent(workspace: Workspace, refusal: Any, message: str):
    workspace.on("POST", f"{PATH}/query", lambda request: refusal)
    index = retriever()
    with pytest.raises(ToolError) as error:
        index.search("port")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    program = oneturn.ReAct("question -> answer", tools=[index.search])
    program.set_lm(ScriptedLM(call("search", query="port"), finish(answer="I can't look it up.")))
    assert message in program(question="Which port?").trajectory[0].observation


def test_a_missing_column_is_named(workspace: Workspace):
    workspace.on(
        "POST",
        f"{PATH}/query",
        lambda request: {"manifest": {"columns": [{"name": "x"}]}, "result": {"data_array": [["1"]]}},
    )
    with pytest.raises(ToolError, match="returned no column chunk, chunk_id"):
        retriever().search("port")


def test_a_search_uses_the_users_credentials(workspace: Workspace):
    workspace.users |= {"token-1": "ann", "token-2": "bob"}
    index = retriever(credentials="user")
    for token in ("token-1", "token-2"):
        with RunContext(caller=token).active():
            index.search("port")
    assert [request.user for request in workspace.asked("POST", f"{PATH}/query")] == ["ann", "bob"]
    with pytest.raises(ConfigError, match="needs a calling user"):
        index.search("port")


def test_sources_are_cited_by_their_address_and_traced(workspace: Workspace, traced: None):
    class Answer(dspy.Signature):
        """Answer from the handbook."""

        question: str = dspy.InputField()
        answer: str = dspy.OutputField()
        citations: list[oneturn.Citation] = dspy.OutputField()

    program = oneturn.ReAct(Answer, tools=[retriever().search])
    program.set_lm(ScriptedLM(call("search", query="port"), finish(answer="Port 443.", citations=["c1"])))
    request = {"input": [{"role": "user", "content": "Which port?"}]}
    response = oneturn.ResponsesAdapter(program).predict(request).model_dump()
    (message,) = [item for item in response["output"] if item["type"] == "message"]
    (annotation,) = message["content"][0]["annotations"]
    assert annotation["url"] == "https://example.com/network"
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    (span,) = trace.search_spans(span_type=SpanType.RETRIEVER)
    assert span.outputs[0]["id"] == "c1"
    assert span.outputs[0]["metadata"]["doc_uri"] == "https://example.com/network"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"index": None}, "kind: databricks needs index"),
        ({"text_column": None, "index": None}, "kind: databricks needs index and text_column"),
        ({"index": "handbook"}, "index should be <catalog>.<schema>.<name>, not 'handbook'"),
        ({"kind": "local"}, "index, text_column, primary_key, doc_uri need kind: databricks"),
    ],
)
def test_keys_that_do_not_go_together(keys: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        AgentConfig.read({"retriever": {**KEYS, **keys}})


def test_the_retrievers_resources_and_scopes():
    section = {**KEYS, "embeddings": "databricks/embedder"}
    own = AgentConfig.read({"retriever": section})
    users = AgentConfig.read({"retriever": {**section, "credentials": "user"}})
    assert AgentConfig.read(own.to_model_config()) == own
    assert sorted(each.name for each in resources_of(own)) == ["embedder", INDEX]
    assert scopes_of(own) == []
    assert resources_of(users) == []
    assert scopes_of(users) == ["serving.serving-endpoints", "vectorsearch.vector-search-indexes"]
