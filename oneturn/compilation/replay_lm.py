"""An LM with a journal: answers are recorded, and recorded answers are replayed instead of requested again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from typing import Any

import dspy
from dspy.lm15 import Request, Response
from dspy.utils.callback import BaseCallback

from oneturn.compilation.budget import Budget
from oneturn.compilation.journal import Cursor, Journal, JournalEntry
from oneturn.core._dspy import (
    engine_call,
    request_to_dict,
    response_from_dict,
    response_to_dict,
    usage_dict,
    uses_engine,
    with_engine,
)
from oneturn.core.usage import Usage, note_replayed
from oneturn.errors import ConfigError
from oneturn.lm.capabilities import capabilities_of
from oneturn.lm.reply_ending import ReplyCheck
from oneturn.lm.streaming import StreamingEngine

_log = logging.getLogger(__name__)


def journaled_lm(lm: dspy.BaseLM, journal: Journal, cursor: Cursor, budget: Budget, *, cache: bool) -> dspy.LM:
    """A view of ``lm`` that finds its answers in ``journal``, and writes down those it has to ask for.

    Args:
        lm: the LM that answers.
        journal: what it has answered.
        cursor: which requests were made in this phase of the compile.
        budget: what may be spent on answers that aren't in the journal.
        cache: whether a request that is made again gets the answer of the first time, as DSPy's optimizers expect.

    Raises:
        ConfigError: the LM owns its connection, so that its calls can't be written down.
    """
    if not uses_engine(lm):
        raise ConfigError(f"{type(lm).__name__} can't be compiled with: oneturn needs a dspy.LM with an engine.")
    engine = JournaledEngine(lm, journal, cursor, budget)
    return with_engine(lm.copy(cache=cache), engine, AsyncJournaledEngine(engine, lm))


class UncountedLMs(BaseCallback):
    """Warns, once per LM, about calls to LMs without a journal: the budget doesn't limit them."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Warn if the LM has no journal."""
        model = str(getattr(instance, "model", type(instance).__name__))
        engine = getattr(instance, "engine", None)
        while isinstance(engine, ReplyCheck | StreamingEngine):
            engine = engine.lm.engine
        if isinstance(engine, JournaledEngine) or model in self._warned:
            return
        self._warned.add(model)
        _log.warning(
            "The metric, the program or the recipe calls %s directly: these calls aren't counted or limited, and a "
            "resumed compile makes them again. A recipe gets the configured LM as `teacher`.",
            model,
        )


class JournaledEngine:
    """An engine that answers from a journal, or else through the engine of its LM (DSPy's engine interface)."""

    def __init__(self, lm: dspy.LM, journal: Journal, cursor: Cursor, budget: Budget):
        self._lm = lm
        self._journal = journal
        self._cursor = cursor
        self._budget = budget
        vars(self).update(capabilities_of(lm))

    def complete(self, request: Request) -> Response:
        """Return the response to a request."""
        key = _key(request)
        entry = self._journal.answer(key, self._cursor.next(key))
        if entry is not None:
            note_replayed(entry.seconds)
            return response_from_dict(entry.response)
        with self._budget.call():
            start = time.perf_counter()
            call = engine_call(self._lm, request)
            response = call.engine.complete(call.request)
            cost = call.cost(response)
            response = call.with_inclusive_usage(response)
            usage = Usage.from_dspy({**usage_dict(response), "cost": cost})
            self._journal.add(key, JournalEntry(response_to_dict(response), time.perf_counter() - start, usage))
        self._budget.note_price(self._lm.model, cost)
        return response


class AsyncJournaledEngine:
    """The asynchronous variant of :class:`JournaledEngine`."""

    def __init__(self, engine: JournaledEngine, lm: dspy.LM):
        self._engine = engine
        vars(self).update(capabilities_of(lm))

    async def complete(self, request: Request) -> Response:
        """Return the response to a request."""
        return await asyncio.to_thread(self._engine.complete, request)


def _key(request: Request) -> str:
    serialized = json.dumps(request_to_dict(request), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(serialized.encode(errors="surrogatepass")).hexdigest()
