"""An LM with a journal: answers are recorded, and recorded answers are replayed instead of requested again."""

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
from dspy.clients.call_result import usage_dict
from dspy.clients.costs import estimate_cost
from dspy.lm15 import Request, Response
from dspy.utils.callback import BaseCallback

from oneturn.compilation.budget import Budget
from oneturn.compilation.journal import Cursor, Journal, JournalEntry
from oneturn.core.usage import Usage, note_replayed, with_inclusive_usage
from oneturn.errors import ConfigError
from oneturn.lm.capabilities import known_capabilities

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
        ConfigError: the LM owns its connection, so that its calls capabilities't be written down.
    """
    if not isinstance(lm, dspy.LM) or type(lm).forward is not dspy.LM.forward or lm.model_type == "text":
        raise ConfigError(
            f"{type(lm).__name__} capabilities't be compiled with: oneturn needs a dspy.LM with an engine."
        )
    view: dspy.LM = lm.copy(cache=cache)
    engine = JournaledEngine(lm, journal, cursor, budget)
    view._engine_spec, view._async_engine_spec = engine, AsyncJournaledEngine(engine)
    return view


class UncountedLMs(BaseCallback):
    """Warns, once per LM, about calls to LMs without a journal: the budget doesn't limit them."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Warn if the LM has no journal."""
        model = str(getattr(instance, "model", type(instance).__name__))
        if isinstance(getattr(instance, "_engine_spec", None), JournaledEngine) or model in self._warned:
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
        capabilities = known_capabilities(lm)
        self.supports_function_calling = capabilities.function_calling
        self.supports_reasoning = capabilities.reasoning
        self.supports_response_schema = capabilities.response_schema
        self.supported_params = capabilities.params

    def complete(self, request: Request) -> Response:
        """Return the response to a request."""
        key = _key(request)
        entry = self._journal.answer(key, self._cursor.next(key))
        if entry is not None:
            note_replayed(entry.seconds)
            return response_from_dict(entry.response)
        with self._budget.call():
            start = time.perf_counter()
            response, usage = self._request(request)
            self._journal.add(key, JournalEntry(response_to_dict(response), time.perf_counter() - start, usage))
        self._budget.note_price(self._lm.model, usage.cost)
        return response

    def _request(self, request: Request) -> tuple[Response, Usage]:
        call = execution.prepare(self._lm, request, None, {})
        backend, canonical, provider = execution._engine(self._lm, call, False)
        response = backend.complete(canonical)
        cost, _ = estimate_cost(response, provider=provider, requested_model=canonical.model, request=canonical)
        response = with_inclusive_usage(response, provider)
        return response, Usage.from_dspy({**usage_dict(response), "cost": cost})


class AsyncJournaledEngine:
    """The asynchronous variant of :class:`JournaledEngine`."""

    def __init__(self, engine: JournaledEngine):
        self._engine = engine
        self.supports_function_calling = engine.supports_function_calling
        self.supports_reasoning = engine.supports_reasoning
        self.supports_response_schema = engine.supports_response_schema
        self.supported_params = engine.supported_params

    async def complete(self, request: Request) -> Response:
        """Return the response to a request."""
        return await asyncio.to_thread(self._engine.complete, request)


def _key(request: Request) -> str:
    serialized = json.dumps(request_to_dict(request), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(serialized.encode()).hexdigest()
