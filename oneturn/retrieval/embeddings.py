"""Text embeddings from an OpenAI-compatible endpoint, a Databricks endpoint or the embedded model."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oneturn.config import EmbeddingsConfig
from oneturn.core.databricks_auth import Who, workspace_token
from oneturn.errors import ConfigError, DataError
from oneturn.lm.local.weights import cache_folder, ensure_folder

if TYPE_CHECKING:  # slow to import, and most agents embed nothing
    import openai

Embed = Callable[[Sequence[str]], "np.ndarray[Any, Any]"]
"""Maps texts to an array with one row per text, each of length 1."""

_BATCH_SIZE = 64


def build_embedder(config: EmbeddingsConfig, credentials: Who = "agent") -> Embed:
    """Return the embedder of ``config``. It sends, starts and downloads nothing before its first call.

    Args:
        config: the embedding model.
        credentials: the agent's or the user's, for an endpoint of the workspace.
    """

    def embed(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        client, model = _client(config, credentials)
        with client:
            vectors = [
                _request_vectors(client, model, list(texts[start : start + _BATCH_SIZE]), config)
                for start in range(0, len(texts), _BATCH_SIZE)
            ]
        return _normalized(np.concatenate(vectors))

    return embed


def _client(config: EmbeddingsConfig, credentials: Who) -> tuple[openai.OpenAI, str]:
    import openai

    provider, _, model = config.model.partition("/")
    if provider == "local":
        from oneturn.lm.local.server import embedding_server

        server = embedding_server(model)
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key), model
    if provider == "databricks":
        host, token = workspace_token(credentials)
        return openai.OpenAI(base_url=f"{host}/serving-endpoints", api_key=token, timeout=config.timeout), model
    key = os.environ.get(config.api_key_env or "OPENAI_API_KEY")
    if not key and config.api_base is None:
        name = config.api_key_env or "OPENAI_API_KEY"
        raise ConfigError(f"The environment variable {name} isn't set: it should hold the key for {config.model!r}.")
    return openai.OpenAI(base_url=config.api_base, api_key=key or "none", timeout=config.timeout), model


def _request_vectors(
    client: openai.OpenAI, model: str, texts: list[str], config: EmbeddingsConfig
) -> np.ndarray[Any, Any]:
    import openai

    try:
        rows = client.embeddings.create(model=model, input=texts, encoding_format="float").data
    except openai.APIConnectionError as error:
        raise DataError(
            f"The embedding model {config.model!r} can't be reached at {client.base_url}. Start it, or set "
            "retriever.embeddings.api_base; with retriever.embeddings: null, retrieval uses BM25 only."
        ) from error
    except openai.APIStatusError as error:
        reason = str(error.message)[:300]
        raise DataError(f"The embedding model {config.model!r} rejects the request: {reason}") from error
    if len(rows) != len(texts):
        raise DataError(f"The embedding model {config.model!r} returned {len(rows)} vectors for {len(texts)} texts.")
    return np.asarray([row.embedding for row in sorted(rows, key=lambda row: row.index)], dtype=np.float32)


def _normalized(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def cached_vectors(texts: Sequence[str], model: str, embed: Embed) -> np.ndarray[Any, Any]:
    """Return the texts' vectors from the cache folder, computed on first use; read-only, one row per text.

    Args:
        texts: the texts to embed.
        model: identifies the embedding model in the cache key.
        embed: computes the vectors that aren't in the cache.
    """
    path = ensure_folder(cache_folder() / "embeddings") / f"{_key(texts, model)}.npy"
    if not path.is_file():
        _write(path, embed(texts))
    vectors: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)
    vectors.flags.writeable = False
    return vectors


def _key(texts: Sequence[str], model: str) -> str:
    return hashlib.sha256(json.dumps([model, *texts]).encode()).hexdigest()[:32]


def _write(path: Path, vectors: np.ndarray[Any, Any]) -> None:
    """Write ``vectors`` to ``path`` atomically; safe with concurrent writers."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, vectors, allow_pickle=False)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
