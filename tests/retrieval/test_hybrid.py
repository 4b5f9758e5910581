"""Hybrid retrieval, with an embedding model behind a real HTTP server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Document, SpanType

import oneturn
from oneturn.config import EmbeddingsConfig, RetrieverConfig
from oneturn.errors import ConfigError, DataError
from oneturn.retrieval.embeddings import build_embedder
from oneturn.retrieval.factory import LazyRetriever
from oneturn.retrieval.hybrid import fuse

MEANINGS = ("money", "machine", "garden")
"""The dimensions of the fake model: a text's vector counts the words of each meaning."""
WORDS = {"price": "money", "cost": "money", "coffee": "machine", "descale": "machine", "rose": "garden"}
DOCUMENTS = [
    Document("The price is nine euros.", {"doc_uri": "prices.md"}, id="price"),
    Document("Descale it monthly.", {"doc_uri": "care.md"}, id="care"),
    Document("A rose needs sun.", {"doc_uri": "rose.md"}, id="rose"),
]


class Model:
    """A fake OpenAI-compatible embedding model that records its requests."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.keys: set[str] = set()
        self.status = 200
        self.url = ""

    def answer(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        self.requests.append(body["input"])
        self.keys.add(key)
        data = [{"index": n, "embedding": self.vector(text)} for n, text in enumerate(body["input"])]
        return {"object": "list", "model": body["model"], "data": data[::-1], "usage": {}}

    def vector(self, text: str) -> list[float]:
        meanings = [meaning for word, meaning in WORDS.items() if word in text.lower()]
        return [float(meanings.count(meaning)) for meaning in MEANINGS]


@pytest.fixture
def model() -> Iterator[Model]:
    fake = Model()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = (
                fake.answer(body, self.headers["Authorization"])
                if fake.status == 200
                else {"error": {"message": "too much"}}
            )
            content = json.dumps(answer).encode()
            self.send_response(fake.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONETURN_CACHE", str(tmp_path / "cache"))


def config(model: Model, **keys: Any) -> RetrieverConfig:
    return RetrieverConfig.model_validate({"embeddings": {"model": "openai/m", "api_base": model.url}, "k": 2, **keys})


def retriever(model: Model, **keys: Any) -> oneturn.Retriever:
    return oneturn.build_retriever(config(model, **keys), documents=lambda: DOCUMENTS)


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_embeddings_find_documents_that_share_no_word(model: Model):
    words = oneturn.build_retriever(RetrieverConfig(k=2), documents=lambda: DOCUMENTS)
    assert words.search("how is the coffee thing cleaned") == []
    assert ids(retriever(model).search("how is the coffee thing cleaned"))[0] == "care"


def test_a_stemmer_applies_to_the_keyword_ranking(model: Model):
    assert ids(retriever(model).search("needing coffee")) == ["care", "price"]
    assert ids(retriever(model, stemmer="english").search("needing coffee")) == ["rose", "care"]


def test_a_document_in_both_rankings_comes_first(model: Model):
    assert ids(retriever(model).search("the price, what does it cost?"))[0] == "price"


def test_documents_are_embedded_once(model: Model):
    for question in ("coffee?", "cost?"):
        retriever(model).search(question)
    assert model.requests == [[f" {document.page_content}" for document in DOCUMENTS], ["coffee?"], ["cost?"]]


def test_vectors_are_cached_by_texts_and_model(model: Model):
    retriever(model).search("coffee?")
    other = {"model": "openai/other", "api_base": model.url}
    oneturn.build_retriever(config(model, embeddings=other), documents=lambda: DOCUMENTS).search("coffee?")
    oneturn.build_retriever(config(model), documents=lambda: DOCUMENTS[:2]).search("coffee?")
    assert [len(texts) for texts in model.requests] == [3, 1, 3, 1, 2, 1]


def test_concurrent_first_searches_build_once(model: Model):
    shared, start = retriever(model), threading.Barrier(8)

    def ask(number: int) -> str | None:
        start.wait()
        return shared.search("coffee?")[0].id

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"care"}
    assert sum(len(texts) == 3 for texts in model.requests) == 1


def test_nothing_is_read_or_requested_before_the_first_search(model: Model):
    def documents() -> list[Document]:
        raise AssertionError("too early")

    oneturn.build_retriever(config(model), documents=documents)
    assert model.requests == []


def test_a_failed_build_is_retried(model: Model):
    lazy = retriever(model)
    model.status = 500
    with pytest.raises(DataError, match="rejects the request"):
        lazy.search("coffee?")
    model.status = 200
    assert ids(lazy.search("coffee?"))[0] == "care"


def test_an_unreachable_model_is_an_error_with_a_fix():
    section = EmbeddingsConfig(model="openai/m", api_base="http://127.0.0.1:9/v1")
    with pytest.raises(DataError, match=r"can't be reached at http://127\.0\.0\.1:9/v1"):
        build_embedder(section)(["x"])


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY isn't set"):
        build_embedder(EmbeddingsConfig(model="openai/m", api_key_env="MY_KEY"))(["x"])


def test_an_empty_question_finds_nothing(model: Model):
    assert retriever(model).search("  ") == []


def test_a_search_is_a_retriever_span(model: Model, traced: None):
    hybrid = retriever(model)
    with mlflow.start_span("request") as root:
        hybrid.search("coffee?")
    (span,) = mlflow.get_trace(root.trace_id).search_spans(span_type=SpanType.RETRIEVER)
    assert span.outputs[0]["metadata"]["doc_uri"] == "care.md"


def test_the_vectors_cannot_be_changed(model: Model):
    shared = retriever(model)
    assert isinstance(shared, LazyRetriever)
    with pytest.raises(ValueError, match="read-only"):
        shared.retriever()._vectors[0] = np.zeros(3)  # type: ignore[attr-defined]


def test_a_local_kind_needs_documents():
    with pytest.raises(ConfigError, match="has no documents"):
        oneturn.build_retriever(RetrieverConfig())


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=4), st.integers(1, 6))
def test_fusion_keeps_what_all_rankings_agree_on(rankings: list[list[str]], k: int):
    documents = {name: Document(name, id=name) for name in "abcdef"}
    best = ids(fuse([[documents[name] for name in ranking] for ranking in rankings], k))
    assert len(best) == min(k, len({name for ranking in rankings for name in ranking}))
    assert len(set(best)) == len(best)
    firsts = {ranking[0] for ranking in rankings if ranking}
    if len(firsts) == 1 and all(rankings):
        assert best[0] in firsts
    if rankings:
        assert ids(fuse([[documents[name] for name in rankings[0]]] * 3, k)) == rankings[0][:k]
