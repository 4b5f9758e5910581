"""What a compile has spent and what is left of its limits stands there while it runs, in a log as in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

import oneturn
from oneturn.compilation import SpendBar
from oneturn.config import BudgetConfig
from tests.compilation.agent import CountingLM, agent
from tests.compilation.test_budget import answered


def bars(told: str) -> list[str]:
    """What was shown of the bar, in order."""
    return [part for part in told.replace("\n", "\r").split("\r") if part.startswith("compile, search")]


def test_it_begins_with_what_earlier_starts_have_spent(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    oneturn.compile(agent(tmp_path), budget=BudgetConfig(lm_calls=20))
    capsys.readouterr()
    limits = BudgetConfig(lm_calls=200, tokens=1_000_000, minutes=5)
    done = oneturn.compile(agent(tmp_path), budget=limits, listeners=[SpendBar(limits)])
    first, *_, last = bars(capsys.readouterr().err)
    assert " 20/200 " in first
    assert "of 1,000k tokens, 0.0 of 5 min" in first
    assert f" {done.manifest.spend['lm_calls']:.0f}/200 " in last


def test_a_log_isn_t_filled_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    oneturn.compile(agent(tmp_path), listeners=[SpendBar()])
    assert answered(tmp_path) > 20
    assert len(bars(capsys.readouterr().err)) < 10


def test_it_is_closed_when_the_compile_is_interrupted(tmp_path: Path):
    lm = CountingLM(tmp_path)
    bar = SpendBar()

    def interrupted(request: object) -> None:
        if answered(tmp_path) == 5:
            raise KeyboardInterrupt
        return complete(request)

    complete = lm.engine.complete
    lm.engine.complete = interrupted
    (tmp_path / "answered.txt").touch()
    with pytest.raises(KeyboardInterrupt):
        oneturn.compile(agent(tmp_path, lm), listeners=[bar])
    assert bar._bar.disable
