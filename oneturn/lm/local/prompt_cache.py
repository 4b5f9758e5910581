"""A disk cache of the embedded LM's prompt state, so the next process doesn't process the prompt again.

The 1.5B model takes half a minute on two cores to process 2,000 prompt tokens, and every run of a program starts with
the same tokens: instructions, tools, demos. llama.cpp can save their computed state and load it in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dspy
import httpx
from rich.console import Console

from oneturn.errors import LocalLMError
from oneturn.lm.local.engine import LocalEngine
from oneturn.lm.local.weights import cache_folder, weights_for

MAX_PROMPTS = 4
"""How many prompts stay on disk, most recently used first; each takes about 30 kB per token (1.5B)."""

Messages = Sequence[Mapping[str, Any]]


def warm_up(program: dspy.Module, lm: dspy.BaseLM | None = None) -> None:
    """Start the embedded LM and load the prompt prefix of ``program`` into it. Any other LM is left unchanged.

    Args:
        program: a program with ``shared_messages()``, such as a ``oneturn.ReAct``. For any other program, the LM is
            started without a prompt.
        lm: the LM to use; ``None`` for the LMs of the program's predictors.

    Raises:
        WeightsError: the weights can't be downloaded.
        LocalLMError: the LM can't be started, or can't process the prompt.
    """
    lms = [lm] if lm is not None else [predictor.lm for _, predictor in program.named_predictors()]
    engines = [getattr(each, "engine", None) for each in lms]
    for engine in dict.fromkeys(engine for engine in engines if isinstance(engine, LocalEngine)):
        shared = program.shared_messages() if hasattr(program, "shared_messages") else []
        load_prompt(engine, shared)


def load_prompt(engine: LocalEngine, messages: Messages) -> None:
    """Start the server of ``engine`` and load ``messages`` into each of its slots, from the disk cache if possible.

    Raises:
        WeightsError: the weights can't be downloaded.
        LocalLMError: the LM can't be started, or can't process the messages.
    """
    server = engine.server()
    if not messages:
        return
    file = prompts_folder() / f"{_key(engine, messages)}.bin"
    headers = {"Authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=engine.timeout) as client:
        try:
            if not _restore(client, engine.settings.slots, file):
                console = Console(stderr=True, force_jupyter=False)  # in a notebook, it would need ipywidgets
                with console.status("The embedded LM processes the agent's prompt, once …"):
                    _compute(client, messages, file)
                _restore(client, engine.settings.slots, file)
        except httpx.TimeoutException as error:
            raise LocalLMError(
                f"The embedded LM didn't process the agent's prompt within {engine.timeout:.0f} s, which takes half a "
                "minute on two idle cores. Stop other work on this machine, or raise lm.timeout."
            ) from error
    _evict(file)


def prompts_folder() -> Path:
    """Return the folder of cached prompts, in the cache folder beside the weights."""
    return cache_folder() / "prompts"


def _restore(client: httpx.Client, slots: int, file: Path) -> bool:
    if not file.exists():
        return False
    answers = [client.post(f"/slots/{slot}?action=restore", json={"filename": file.name}) for slot in range(slots)]
    return all(answer.is_success for answer in answers)


def _compute(client: httpx.Client, messages: Messages, file: Path) -> None:
    partial = file.with_suffix(f".{os.getpid()}")  # another process must never see a partial file
    completion = {"messages": list(messages), "max_tokens": 0, "id_slot": 0, "cache_prompt": True}
    for path, body in (("/v1/chat/completions", completion), ("/slots/0?action=save", {"filename": partial.name})):
        answer = client.post(path, json=body)
        if not answer.is_success:
            raise LocalLMError(f"The embedded LM couldn't process the agent's prompt: {answer.text}")
    os.replace(partial, file)


def _key(engine: LocalEngine, messages: Messages) -> str:
    """Return a hash of everything that the prompt state depends on."""
    weights = engine.weights or weights_for(engine.size).sha256
    key = json.dumps([weights, engine.settings.context, version("xllamacpp"), list(messages)])
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def _evict(used: Path) -> None:
    """Mark ``used`` as the most recently used prompt and delete all but the ``MAX_PROMPTS`` most recent ones."""
    used.touch()
    by_age = sorted(used.parent.glob("*.bin"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in by_age[MAX_PROMPTS:]:
        old.unlink(missing_ok=True)
