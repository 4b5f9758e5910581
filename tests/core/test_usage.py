"""What rows cost in dollars: by DSPy's own price list, and never by fetching one."""

from __future__ import annotations

import pytest
from dspy.clients import model_metadata
from dspy.clients.costs import estimate_cost
from dspy.lm15 import Message, Response, TextPart, Usage

from oneturn.core import usage as spend
from oneturn.core.usage import Spend

USED = {"prompt_tokens": 1200, "completion_tokens": 34}


def spent(model: str) -> Spend:
    found = Spend()
    for _ in range(2):
        found.add_usage(model, USED)
    return found


@pytest.fixture(autouse=True)
def _no_prices_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setattr(model_metadata, "_data", None)
    spend._prices.cache_clear()


def test_a_known_model_costs_what_dspy_says():
    usage = Usage(input_tokens=2400, output_tokens=68)
    message = Message.assistant(TextPart("x"))
    response = Response(id=None, model="gpt-4o-mini", message=message, finish_reason="stop", usage=usage)
    expected, _ = estimate_cost(response, provider="openai", requested_model="gpt-4o-mini")
    assert expected is not None
    assert spent("openai/gpt-4o-mini").cost == pytest.approx(expected)


def test_an_lm_without_a_price_costs_nobody_knows_what_and_fetches_no_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_metadata, "_load", lambda: pytest.fail("a price list was asked for"))
    assert spent("local/1.5B").cost is None
    assert Spend().cost == 0
