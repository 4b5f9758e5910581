"""A prompt that the embedded LM has read before, kept on disk: the next process needn't read it again.

Reading 2,000 tokens takes the 1.5B model half a minute on two cores, and every run of a program begins with the same
ones: instructions, tools, demos. llama.cpp can save what it computed of them and load it in milliseconds.
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
from oneturn.lm.local.catalog import cache_folder, weights_for
from oneturn.lm.local.engine import LocalEngine

KEPT = 4
"""Prompts that are kept on disk, the last used ones; each takes about 30 kB a token (1.5B)."""

Messages = Sequence[Mapping[str, Any]]


def warm_up(program: dspy.Module, lm: dspy.BaseLM | None = None) -> None:
    """Start the embedded LM and let it have read what every run of ``program`` begins with; nothing for another LM.

    Args:
        program: one that tells its ``shared_messages()``, such as a ``oneturn.ReAct``; of another, the LM is started.
        lm: the LM that will answer; ``None`` for the one that the program's predictors have.

    Raises:
        WeightsError: the weights can't be had.
        LocalLMError: the LM can't be started, or can't read the prompt.
    """
    found = [lm] if lm is not None else [predictor.lm for _, predictor in program.named_predictors()]
    engines = [getattr(each, "_engine_spec", None) for each in found]
    for engine in dict.fromkeys(engine for engine in engines if isinstance(engine, LocalEngine)):
        shared = program.shared_messages() if hasattr(program, "shared_messages") else []
        read_ahead(engine, shared)


def read_ahead(engine: LocalEngine, messages: Messages) -> None:
    """Start ``engine``'s server and let every slot of it have read ``messages``, from disk where they are there.

    Raises:
        WeightsError: the weights can't be had.
        LocalLMError: the LM can't be started, or can't read the messages.
    """
    server = engine.server()
    if not messages:
        return
    file = prompts_folder() / f"{_key(engine, messages)}.bin"
    headers = {"Authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=engine.timeout) as client:
        if not _restored(client, engine.settings.slots, file):
            with Console(stderr=True).status("The embedded LM reads the agent's prompt, once …"):
                _read(client, messages, file)
            _restored(client, engine.settings.slots, file)
    _keep_the_last(file)


def prompts_folder() -> Path:
    """Where prompts are kept: in the cache, beside the weights."""
    return cache_folder() / "prompts"


def _restored(client: httpx.Client, slots: int, file: Path) -> bool:
    if not file.exists():
        return False
    answers = [client.post(f"/slots/{slot}?action=restore", json={"filename": file.name}) for slot in range(slots)]
    return all(answer.is_success for answer in answers)


def _read(client: httpx.Client, messages: Messages, file: Path) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}")  # another process must never find half a file
    asked = {"messages": list(messages), "max_tokens": 0, "id_slot": 0, "cache_prompt": True}
    for path, body in (("/v1/chat/completions", asked), ("/slots/0?action=save", {"filename": unfinished.name})):
        answer = client.post(path, json=body)
        if not answer.is_success:
            raise LocalLMError(f"The embedded LM couldn't read the agent's prompt ahead: {answer.text}")
    os.replace(unfinished, file)


def _key(engine: LocalEngine, messages: Messages) -> str:
    """What the computed prompt depends on."""
    weights = engine.weights or weights_for(engine.size).sha256
    told = json.dumps([weights, engine.settings.context, version("xllamacpp"), list(messages)])
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def _keep_the_last(used: Path) -> None:
    used.touch()
    by_age = sorted(used.parent.glob("*.bin"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in by_age[KEPT:]:
        old.unlink(missing_ok=True)
