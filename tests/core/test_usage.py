"""Costs come from DSPy's price list, which is never fetched for an LM without a price."""

from __future__ import annotations

import pytest
from dspy.clients import model_metadata
from dspy.clients.costs import estimate_cost
from dspy.lm15 import Message, Response, TextPart, Usage

from oneturn.core import usage as usage_module
from oneturn.core.usage import Spend

USED = {"prompt_tokens": 1200, "completion_tokens": 34}


def spent(model: str) -> Spend:
    spend = Spend()
    for _ in range(2):
        spend.add_usage(model, USED)
    return spend


@pytest.fixture(autouse=True)
def _no_prices_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setattr(model_metadata, "_data", None)
    usage_module._prices.cache_clear()


def test_the_cost_of_a_known_model_matches_dspy():
    usage = Usage(input_tokens=2400, output_tokens=68)
    message = Message.assistant(TextPart("x"))
    response = Response(id=None, model="gpt-4o-mini", message=message, finish_reason="stop", usage=usage)
    expected, _ = estimate_cost(response, provider="openai", requested_model="gpt-4o-mini")
    assert expected is not None
    assert spent("openai/gpt-4o-mini").cost == pytest.approx(expected)


def test_an_lm_without_a_price_has_no_cost_and_fetches_no_price_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_metadata, "_load", lambda: pytest.fail("the price list was loaded"))
    assert spent("local/1.5B").cost is None
    assert Spend().cost == 0
