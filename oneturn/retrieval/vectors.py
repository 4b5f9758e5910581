"""The documents' vectors, computed once and kept in the user's cache: the same texts and model find them again."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oneturn.local.cache import cache_folder, made
from oneturn.retrieval.embedder import Embed


def vectors_of(texts: Sequence[str], model: str, embed: Embed) -> np.ndarray[Any, Any]:
    """A row of length 1 for each text, read-only.

    Args:
        texts: what to embed.
        model: what tells one embedding model from another.
        embed: what does it, if it hasn't been done.
    """
    path = made(cache_folder() / "embeddings") / f"{_key(texts, model)}.npy"
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
