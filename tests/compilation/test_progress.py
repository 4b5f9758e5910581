"""The progress bar shows the spend of a compile against its limits, in a terminal and in a log."""

from __future__ import annotations

from pathlib import Path

import pytest

import oneturn
from oneturn.compilation import SpendBar
from oneturn.config import BudgetConfig
from tests.compilation.agent import CountingLM, agent
from tests.compilation.test_budget import answered


def bars(text: str) -> list[str]:
    """Return the states of the bar in the captured output, in order."""
    return [part for part in text.replace("\n", "\r").split("\r") if part.startswith("compile, search")]


def test_bar_includes_the_spend_of_earlier_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    oneturn.compile(agent(tmp_path), budget=BudgetConfig(lm_calls=20))
    capsys.readouterr()
    limits = BudgetConfig(lm_calls=200, tokens=1_000_000, minutes=5)
    done = oneturn.compile(agent(tmp_path), budget=limits, callbacks=[SpendBar(limits)])
    first, *_, last = bars(capsys.readouterr().err)
    assert " 20/200 " in first
    assert "of 1,000k tokens, 0.0 of 5 min" in first
    assert f" {done.manifest.spend['lm_calls']:.0f}/200 " in last


def test_bar_writes_few_lines_to_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    oneturn.compile(agent(tmp_path), callbacks=[SpendBar()])
    assert answered(tmp_path) > 20
    assert len(bars(capsys.readouterr().err)) < 10


def test_bar_is_closed_after_an_interruption(tmp_path: Path):
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
        oneturn.compile(agent(tmp_path, lm), callbacks=[bar])
    assert bar._bar.disable


def test_a_process_that_has_imported_a_kernel_writes_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ipykernel")
    oneturn.compile(agent(tmp_path), callbacks=[SpendBar()])
    assert len(bars(capsys.readouterr().err)) < 10


def test_after_an_interrupt_the_bar_says_what_is_waited_for(capfd: pytest.CaptureFixture[str]):
    SpendBar().on_interrupted(KeyboardInterrupt())
    assert "Stopping: recording LM calls in progress. Ctrl-C again ends at once." in capfd.readouterr().err
    SpendBar().on_interrupted(ValueError())
    assert capfd.readouterr().err == ""
