"""Usage: what LMs report, what it costs by DSPy's price list, and which calls a tracker counts."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy.clients import model_metadata
from dspy.clients.costs import estimate_cost
from hypothesis import given
from hypothesis import strategies as st

from oneturn.core import usage as usage_module
from oneturn.core._dspy import EngineCall, usage_dict
from oneturn.core.usage import NO_USAGE, CallTracker, Usage, track_usage
from oneturn.testing import ScriptedLM

ENTRY = {
    "prompt_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 1000, "cache_creation_tokens": 100},
    "completion_tokens": 34,
    "completion_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 1234,
}
READ = Usage(1, 1200, 34, cached_tokens=1000, cache_write_tokens=100, reasoning_tokens=30)


@pytest.fixture(autouse=True)
def _no_prices_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setattr(model_metadata, "_data", None)
    usage_module._prices.cache_clear()


def response(model: str, **tokens: int) -> lm15.Response:
    message = lm15.Message.assistant(lm15.TextPart("x"))
    return lm15.Response(id=None, model=model, message=message, finish_reason="stop", usage=lm15.Usage(**tokens))


def test_a_start_without_a_network_prints_no_warning(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP")
    monkeypatch.setenv("LITELLM_MODEL_COST_MAP_URL", "http://127.0.0.1:9/prices.json")
    assert model_metadata._load()
    assert model_metadata.source_info()["fallback_reason"] == "URLError"
    assert "metadata" not in "".join(capfd.readouterr())


# What is reported


def test_dspy_s_entry_is_read_with_cached_and_reasoning_tokens():
    assert Usage.from_dspy(ENTRY) == READ
    assert Usage.from_dspy({}) == Usage(lm_calls=1)


@pytest.mark.parametrize("details", [None, "none", {}, {"cached_tokens": None}])
def test_an_lm_that_reports_no_details_has_none(details: Any):
    entry = {"prompt_tokens": 5, "prompt_tokens_details": details, "completion_tokens": 2.0}
    assert Usage.from_dspy(entry) == Usage(1, 5, 2)


def test_tokens_that_an_lm_counts_apart_are_added():
    apart = {
        "prompt_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 80},
        "completion_tokens": 3,
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    assert Usage.from_dspy(apart) == Usage(1, 100, 12, cached_tokens=80, reasoning_tokens=9)


def test_an_lm_of_the_responses_api_may_report_in_its_format():
    entry = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2}
    assert Usage.from_dspy(entry) == Usage(1, 10, 2, cached_tokens=4)


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "openai", None])
def test_the_wrapper_of_an_engine_reports_what_dspy_reports_of_the_engine(provider: str | None):
    reported = response("x", input_tokens=90, output_tokens=7, cache_read_tokens=80, reasoning_tokens=3)
    request = lm15.Request(model="x", messages=(lm15.Message.user("q"),))
    inclusive = EngineCall(None, request, provider).with_inclusive_usage(reported)
    assert usage_dict(inclusive) == usage_dict(reported, provider)


counts = st.integers(0, 99)
usages = st.builds(
    lambda calls, counts, apart, cost: Usage(calls, counts[0] + apart, counts[1] + apart, *counts[2:], cost=cost),
    counts,
    st.tuples(counts, counts, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.integers(18, 99),
    st.none() | st.integers(0, 9).map(float),
)


@given(usages, usages)
def test_a_usage_survives_each_of_its_formats_and_adds_up(one: Usage, two: Usage):
    assert Usage.from_dspy(one.to_dspy()) == Usage.from_dict(one.to_dict()) == one
    read = Usage.from_responses(one.to_responses())
    assert read.to_responses() == one.to_responses()
    assert (read.lm_calls, read.cost) == (0, None), "the protocol doesn't report them"
    both = sum([one, two], NO_USAGE)
    assert both == one + two == two + one
    assert both.tokens == one.tokens + two.tokens
    assert (both.cost is None) == (one.cost is None or two.cost is None)


# What it costs


@pytest.mark.parametrize(
    ("model", "provider", "tokens"),
    [
        ("gpt-4o-mini", "openai", {"input_tokens": 1200, "cache_read_tokens": 1100}),
        ("claude-sonnet-4-5", "anthropic", {"input_tokens": 100, "cache_read_tokens": 1000, "cache_write_tokens": 100}),
        ("gemini-2.5-flash", "gemini", {"input_tokens": 1200, "cache_read_tokens": 1100, "reasoning_tokens": 30}),
    ],
)
def test_cached_tokens_have_the_price_that_dspy_knows(model: str, provider: str, tokens: dict[str, int]):
    reported = response(model, output_tokens=34, **tokens)
    expected, _ = estimate_cost(reported, provider=provider, requested_model=model)
    lm = dspy.LM(f"{provider}/{model}")
    entry = usage_dict(reported, provider)
    cost = Usage.from_dspy(entry, lm.model).cost
    assert expected is not None
    assert cost == pytest.approx(expected)
    assert cost is not None
    assert cost < Usage.from_dspy({**entry, "prompt_tokens_details": None}, lm.model).cost


def test_an_lm_without_a_price_has_no_cost_and_fetches_no_price_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_metadata, "_load", lambda: pytest.fail("the price list was loaded"))
    assert Usage.from_dspy(ENTRY, "local/1.5B").cost is None
    assert CallTracker().usage == NO_USAGE
    assert NO_USAGE.cost == 0


@pytest.mark.parametrize("model", ["openai/unheard-of", "unheard-of", "claude-code/claude-sonnet-4-5"])
def test_an_lm_that_is_not_in_the_price_list_has_no_cost(model: str):
    model_metadata._load()
    assert Usage.from_dspy(ENTRY, model).cost is None
    assert Usage.from_dspy({**ENTRY, "cost": "free"}, model).cost is None
    assert Usage.from_dspy({**ENTRY, "cost": 0.25}, model).cost == 0.25, "some servers report it"


def test_an_unknown_price_stays_unknown():
    tracker = CallTracker()
    tracker.add_usage("endpoint/desk", Usage(2, 10, 2, cost=0.5).to_dspy())
    assert tracker.usage == Usage(2, 10, 2, cost=0.5)
    tracker.add_usage("local/1.5B", ENTRY)
    assert (tracker.usage.lm_calls, tracker.usage.cost) == (3, None)


# What is counted


def test_a_call_counts_in_every_tracker_around_it_and_one_from_the_cache_in_none():
    predict = dspy.Predict("question -> answer")
    predict.set_lm(ScriptedLM("[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]", cache=True))
    with dspy.track_usage() as around, track_usage() as outer:
        with track_usage() as inner:
            predict(question="2 + 2?")
        with track_usage() as cached:
            predict(question="2 + 2?")
    assert inner.usage == outer.usage
    assert (inner.usage.lm_calls, cached.usage) == (1, NO_USAGE)
    assert around.get_total_tokens()["scripted/lm"]["prompt_tokens"] == inner.usage.input_tokens > 0


def test_a_call_whose_lm_reports_nothing_is_counted():
    class Silent:
        def complete(self, request: lm15.Request) -> lm15.Response:
            return response(request.model)

    with track_usage() as tracker:
        dspy.LM("silent/lm", engine=Silent(), cache=False)("2 + 2?")
    assert tracker.usage == Usage(lm_calls=1)


def test_the_threads_of_dspy_count_in_one_tracker():
    predict = dspy.Predict("question -> answer")
    reply = "[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]"
    with ScriptedLM(*[reply] * 3) as lm, dspy.context(lm=lm), track_usage() as tracker:
        dspy.Parallel(num_threads=3, disable_progress_bar=True)(
            [(predict, dspy.Example(question=f"{n}?").with_inputs("question")) for n in range(3)]
        )
    assert tracker.usage.lm_calls == 3
