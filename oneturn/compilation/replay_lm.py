"""An LM whose answers are written down, and which is asked only what it hasn't answered before."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from typing import Any

import dspy
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict
from dspy.clients import execution
from dspy.clients.costs import estimate_cost
from dspy.lm15 import Request, Response
from dspy.utils.callback import BaseCallback

from oneturn.compilation.budget import Budget
from oneturn.compilation.journal import Answered, Cursor, Journal
from oneturn.core.usage import note_replayed
from oneturn.errors import ConfigError
from oneturn.lm.capabilities import known_capabilities

_log = logging.getLogger(__name__)


def journaled(lm: dspy.BaseLM, journal: Journal, cursor: Cursor, budget: Budget, *, cache: bool) -> dspy.LM:
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
    if not isinstance(lm, dspy.LM) or type(lm).forward is not dspy.LM.forward or lm.model_type == "text":
        raise ConfigError(f"{type(lm).__name__} can't be compiled with: oneturn needs a dspy.LM with an engine.")
    view: dspy.LM = lm.copy(cache=cache)
    engine = JournaledEngine(lm, journal, cursor, budget)
    view._engine_spec, view._async_engine_spec = engine, AsyncJournaledEngine(engine)
    return view


class UncountedLMs(BaseCallback):
    """Warns, once of each, of LMs that are asked beside the journaled ones: no limit holds for them."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An LM is asked."""
        model = str(getattr(instance, "model", type(instance).__name__))
        if isinstance(getattr(instance, "_engine_spec", None), JournaledEngine) or model in self._told:
            return
        self._told.add(model)
        _log.warning(
            "The metric, the program or the recipe asks %s by itself: its calls aren't counted, no limit holds for "
            "them, and a compile that is gone on with makes them again. A recipe gets the configured LM as `teacher`.",
            model,
        )


class JournaledEngine:
    """An engine that answers from a journal, else through its LM's own engine (DSPy's engine interface)."""

    def __init__(self, lm: dspy.LM, journal: Journal, cursor: Cursor, budget: Budget):
        self._lm = lm
        self._journal = journal
        self._cursor = cursor
        self._budget = budget
        can = known_capabilities(lm)
        self.supports_function_calling = can.function_calling
        self.supports_reasoning = can.reasoning
        self.supports_response_schema = can.response_schema
        self.supported_params = can.params

    def complete(self, request: Request) -> Response:
        """Answer one request."""
        key = _key(request)
        known = self._journal.answer(key, self._cursor.next(key))
        if known is not None:
            note_replayed(known.seconds)
            return response_from_dict(known.response)
        with self._budget.call():
            began = time.perf_counter()
            response, cost = self._asked(request)
            self._journal.add(key, Answered(response_to_dict(response), time.perf_counter() - began, cost))
        self._budget.note_price(self._lm.model, cost)
        return response

    def _asked(self, request: Request) -> tuple[Response, float | None]:
        call = execution.prepare(self._lm, request, None, {})
        backend, canonical, provider = execution._engine(self._lm, call, False)
        response = backend.complete(canonical)
        cost, _ = estimate_cost(response, provider=provider, requested_model=canonical.model, request=canonical)
        return response, cost


class AsyncJournaledEngine:
    """The same for a program that waits for its LM asynchronously."""

    def __init__(self, engine: JournaledEngine):
        self._engine = engine
        self.supports_function_calling = engine.supports_function_calling
        self.supports_reasoning = engine.supports_reasoning
        self.supports_response_schema = engine.supports_response_schema
        self.supported_params = engine.supported_params

    async def complete(self, request: Request) -> Response:
        """Answer one request."""
        return await asyncio.to_thread(self._engine.complete, request)


def _key(request: Request) -> str:
    told = json.dumps(request_to_dict(request), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()
