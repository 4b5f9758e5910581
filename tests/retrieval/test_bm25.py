"""BM25 retrieval and the Markdown loader."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Document, SpanType

from oneturn.config import AgentConfig, RetrieverConfig
from oneturn.errors import ConfigError, DataError
from oneturn.retrieval import Bm25Retriever, build_retriever, read_markdown

DOCUMENTS = [
    Document("The red book has 99 pages.", {"title": "Red", "doc_uri": "shelf/red"}, id="red"),
    Document("The blue book has 12 pages, and the blue cover is cloth.", {"title": "Blue"}, id="blue"),
    Document("Descaling takes twenty minutes.", {"title": "Error E22"}, id="descaling"),
]


def search(query: str, k: int = 3) -> list[str | None]:
    return [document.id for document in Bm25Retriever(DOCUMENTS, k=k).search(query)]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("blue cover", ["blue"]),
        ("blue book", ["blue", "red"]),
        ("Which BOOK is RED?", ["red", "blue"]),
        ("e22", ["descaling"]),  # only its title has it
        ("quantum", []),
        ("the of and", []),
        ("", []),
        ("¿€?", []),
    ],
)
def test_documents_that_share_a_word_are_returned_best_first(query: str, ids: list[str]):
    assert search(query) == ids


def test_at_most_k_documents_are_returned():
    assert search("book", k=1) in (["red"], ["blue"])
    assert len(search("book", k=100)) == 2


def test_one_document_is_enough():
    assert [d.id for d in Bm25Retriever(DOCUMENTS[:1]).search("red")] == ["red"]


def test_concurrent_searches():
    retriever = Bm25Retriever(DOCUMENTS)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda query: retriever.search(query)[0].id, ["red", "descaling"] * 40))
    assert answers == ["red", "descaling"] * 40


@pytest.mark.parametrize("query", ["books", "a page", "covers", "descaled"])
def test_a_stemmer_finds_other_forms_of_a_word(query: str):
    assert search(query) == []
    assert Bm25Retriever(DOCUMENTS, stemmer="english").search(query)


def test_configured_stemmer_is_the_language_s():
    german = [Document("Die Maschine wird entkalkt.", id="a"), Document("Der Filter ist neu.", id="b")]
    found = {
        stemmer: build_retriever(RetrieverConfig(stemmer=stemmer), documents=lambda: german).search("Maschinen")
        for stemmer in (None, "english", "german")
    }
    assert [[document.id for document in documents] for documents in found.values()] == [[], [], ["a"]]


@pytest.mark.parametrize(("least", "found"), [(0.0, ["blue", "red"]), (0.5, ["blue"]), (9.0, [])])
def test_documents_below_the_least_score_are_not_found(least: float, found: list[str]):
    retriever = build_retriever(RetrieverConfig(min_score=least), documents=lambda: DOCUMENTS)
    assert [document.id for document in retriever.search("blue book")] == found


def test_concurrent_searches_with_a_stemmer():
    retriever = Bm25Retriever(DOCUMENTS, stemmer="english")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda query: retriever.search(query)[0].id, ["reds", "descaled"] * 40))
    assert answers == ["red", "descaling"] * 40


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"stemmer": "englsh"}, r"should be one of arabic, .*english, .*, not 'englsh'"),
        (
            {"kind": "databricks", "index": "a.b.c", "text_column": "text", "stemmer": "english"},
            "stemmer needs kind: local; an index of Vector Search has its own keyword search",
        ),
        (
            {"kind": "databricks", "index": "a.b.c", "text_column": "text", "min_score": 1},
            "min_score needs kind: local",
        ),
        ({"min_score": 1, "embeddings": "local/0.5B"}, "min_score is for keyword search"),
    ],
)
def test_a_key_that_does_not_fit_is_an_error(section: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        AgentConfig.read({"retriever": section})


def test_copies_of_a_program_share_the_index():
    retriever = Bm25Retriever(DOCUMENTS)
    assert copy.deepcopy({"tool": retriever})["tool"] is retriever


def test_a_search_is_a_retriever_span_in_mlflow_s_schema(traced: None):
    with mlflow.start_span("request") as root:
        Bm25Retriever(DOCUMENTS).search("red")
    (span,) = mlflow.get_trace(root.trace_id).search_spans(span_type=SpanType.RETRIEVER)
    assert span.inputs == {"query": "red"}
    (document,) = span.outputs
    assert (document["id"], document["metadata"]["doc_uri"]) == ("red", "shelf/red")
    assert document["page_content"] == "The red book has 99 pages."


def test_a_search_outside_a_request_writes_no_trace(traced: None):
    before = mlflow.get_last_active_trace_id()
    Bm25Retriever(DOCUMENTS).search("red")
    assert mlflow.get_last_active_trace_id() == before


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


def test_markdown_files_are_read_in_the_order_of_their_names(tmp_path: Path):
    folder = write(tmp_path, b="# Bés\n\nSecond\ntext.\n", a="# A title\n\nFirst.")
    first, second = read_markdown(folder)
    assert (first.id, first.page_content) == ("a", "First.")
    assert (second.page_content, second.metadata) == (
        "Second text.",
        {"title": "Bés", "doc_uri": f"{tmp_path.name}/b.md"},
    )


@pytest.mark.parametrize(
    ("text", "heading"), [("No heading", "No heading"), ("# Only a heading\n", "# Only a heading")]
)
def test_an_invalid_passage_is_reported_with_file_and_line(tmp_path: Path, text: str, heading: str):
    write(tmp_path, bad=text)
    with pytest.raises(DataError) as caught:
        read_markdown(tmp_path)
    path = tmp_path / "bad.md"
    assert str(caught.value) == (
        f"{path}: line 1: a passage is a '# Title' line, an empty line and text; found {heading!r}."
    )


def test_an_empty_folder_is_an_error(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        read_markdown(tmp_path)
    assert str(caught.value) == f"{tmp_path} has no .md file; add one file for each passage."


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "There are no documents to search."),
        ([DOCUMENTS[0], DOCUMENTS[0]], "Two documents have the id 'red'; citations need unique ids."),
    ],
)
def test_invalid_documents_are_rejected(documents: list[Document], message: str):
    with pytest.raises(DataError) as caught:
        Bm25Retriever(documents)
    assert str(caught.value) == message
