"""What turns texts into vectors: an embedding model that speaks OpenAI's protocol, of the workspace, or embedded."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai

from oneturn.config import EmbeddingsConfig
from oneturn.core.databricks_auth import Who
from oneturn.errors import ConfigError, DataError
from oneturn.lm.local.catalog import cache_folder, ensure_folder

Embed = Callable[[Sequence[str]], "np.ndarray[Any, Any]"]
"""Texts to vectors, a row each, of length 1."""

_TOGETHER = 64


def build_embedder(config: EmbeddingsConfig, credentials: Who = "agent") -> Embed:
    """What embeds texts as ``config`` says; nothing is asked, started or fetched before its first call.

    Args:
        config: the model.
        credentials: whose, for an endpoint of the workspace.
    """

    def embed(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        client, model = _client(config, credentials)
        with client:
            vectors = [
                _asked(client, model, list(texts[start : start + _TOGETHER]), config)
                for start in range(0, len(texts), _TOGETHER)
            ]
        return _of_length_one(np.concatenate(vectors))

    return embed


def _client(config: EmbeddingsConfig, credentials: Who) -> tuple[openai.OpenAI, str]:
    provider, _, model = config.model.partition("/")
    if provider == "local":
        from oneturn.lm.local.server import embedding_server

        server = embedding_server(model)
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key), model
    if provider == "databricks":
        from oneturn.core.databricks_auth import workspace_token

        host, token = workspace_token(credentials)
        return openai.OpenAI(base_url=f"{host}/serving-endpoints", api_key=token, timeout=config.timeout), model
    key = os.environ.get(config.api_key_env or "OPENAI_API_KEY")
    if not key and config.api_base is None:
        name = config.api_key_env or "OPENAI_API_KEY"
        raise ConfigError(f"The environment variable {name} isn't set: it should hold the key for {config.model!r}.")
    return openai.OpenAI(base_url=config.api_base, api_key=key or "none", timeout=config.timeout), model


def _asked(client: openai.OpenAI, model: str, texts: list[str], config: EmbeddingsConfig) -> np.ndarray[Any, Any]:
    try:
        found = client.embeddings.create(model=model, input=texts, encoding_format="float").data
    except openai.APIConnectionError as error:
        raise DataError(
            f"The embedding model {config.model!r} can't be reached at {client.base_url}. Start it, or set "
            "retriever.embeddings.api_base; null in retriever.embeddings finds by words alone."
        ) from error
    except openai.APIStatusError as error:
        said = str(error.message)[:300]
        raise DataError(f"The embedding model {config.model!r} refuses to embed: {said}") from error
    if len(found) != len(texts):
        raise DataError(f"The embedding model {config.model!r} gave {len(found)} vectors for {len(texts)} texts.")
    return np.asarray([each.embedding for each in sorted(found, key=lambda each: each.index)], dtype=np.float32)


def _of_length_one(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def vectors_of(texts: Sequence[str], model: str, embed: Embed) -> np.ndarray[Any, Any]:
    """A row of length 1 for each text, read-only.

    Args:
        texts: what to embed.
        model: what tells one embedding model from another.
        embed: what does it, if it hasn't been done.
    """
    path = ensure_folder(cache_folder() / "embeddings") / f"{_key(texts, model)}.npy"
    if not path.is_file():
        _write(path, embed(texts))
    found: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)
    found.flags.writeable = False
    return found


def _key(texts: Sequence[str], model: str) -> str:
    return hashlib.sha256(json.dumps([model, *texts]).encode()).hexdigest()[:32]


def _write(path: Path, vectors: np.ndarray[Any, Any]) -> None:
    """Whole or not at all, whoever else writes it."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, vectors, allow_pickle=False)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
