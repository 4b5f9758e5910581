"""Retrieval: the documents that share a query's words, best first, and nothing else."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Document, SpanType

from oneturn.errors import DataError
from oneturn.retrieval import Bm25Retriever, read_markdown

DOCUMENTS = [
    Document("The red book has 99 pages.", {"title": "Red", "doc_uri": "shelf/red"}, id="red"),
    Document("The blue book has 12 pages, and the blue cover is cloth.", {"title": "Blue"}, id="blue"),
    Document("Descaling takes twenty minutes.", {"title": "Error E22"}, id="descaling"),
]


def found(query: str, k: int = 3) -> list[str | None]:
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
def test_the_best_come_first_and_what_shares_no_word_not_at_all(query: str, ids: list[str]):
    assert found(query) == ids


def test_no_more_than_k_are_given():
    assert found("book", k=1) in (["red"], ["blue"])
    assert len(found("book", k=100)) == 2


def test_one_document_is_enough():
    assert [d.id for d in Bm25Retriever(DOCUMENTS[:1]).search("red")] == ["red"]


def test_many_may_search_at_once():
    retriever = Bm25Retriever(DOCUMENTS)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda query: retriever.search(query)[0].id, ["red", "descaling"] * 40))
    assert answers == ["red", "descaling"] * 40


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


def test_a_search_outside_of_a_request_writes_no_trace(traced: None):
    before = mlflow.get_last_active_trace_id()
    Bm25Retriever(DOCUMENTS).search("red")
    assert mlflow.get_last_active_trace_id() == before


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_of_markdown_is_read_in_the_order_of_its_names(tmp_path: Path):
    folder = write(tmp_path, b="# Bés\n\nSecond\ntext.\n", a="# A title\n\nFirst.")
    first, second = read_markdown(folder)
    assert (first.id, first.page_content) == ("a", "First.")
    assert (second.page_content, second.metadata) == (
        "Second text.",
        {"title": "Bés", "doc_uri": f"{tmp_path.name}/b.md"},
    )


@pytest.mark.parametrize(("text", "shown"), [("No heading", "No heading"), ("# Only a heading\n", "# Only a heading")])
def test_a_passage_that_is_none_is_named_with_its_place(tmp_path: Path, text: str, shown: str):
    write(tmp_path, bad=text)
    with pytest.raises(DataError) as caught:
        read_markdown(tmp_path)
    path = tmp_path / "bad.md"
    assert str(caught.value) == (
        f"{path}: line 1: a passage is a '# Title' line, an empty line and text; found {shown!r}."
    )


def test_an_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        read_markdown(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds no .md file; put one passage into each file there."


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "There are no documents to search."),
        ([DOCUMENTS[0], DOCUMENTS[0]], "Two documents have the id 'red'; ids are what citations name."),
    ],
)
def test_documents_that_can_not_be_searched_are_refused(documents: list[Document], message: str):
    with pytest.raises(DataError) as caught:
        Bm25Retriever(documents)
    assert str(caught.value) == message
