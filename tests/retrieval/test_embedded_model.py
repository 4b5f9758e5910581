"""Embeddings from the embedded model, with real weights."""

from __future__ import annotations

import numpy as np
import pytest
from mlflow.entities import Document

import oneturn
from oneturn.config import EmbeddingsConfig, RetrieverConfig
from oneturn.retrieval.embeddings import build_embedder

pytestmark = pytest.mark.local_lm


def test_texts_with_the_same_meaning_are_nearer():
    vectors = build_embedder(EmbeddingsConfig(model="local/0.5B"))(
        ["a cat sleeps", "the cat is asleep", "def f(x): return x"]
    )
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_a_configured_retriever_uses_it():
    documents = [Document("Coffee costs nine euros.", id="price"), Document("def f(x): return x", id="code")]
    config = RetrieverConfig.model_validate({"embeddings": "local/0.5B", "k": 1})
    assert oneturn.build_retriever(config, lambda: documents).search("how much is coffee")[0].id == "price"
