"""A compile that is killed goes on where it was, pays for nothing twice, and ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import oneturn
from oneturn.compiling.journal import Answered, Journal
from oneturn.compiling.totals import Totals
from tests.compiling.agent import ANSWERED, agent

ROOT = Path(__file__).resolve().parents[2]


def compiled(folder: Path, *fate: str) -> int:
    """Compile in a process of its own; give what it left with."""
    command = [sys.executable, "-m", "tests.compiling.agent", str(folder), *fate]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


def artifact(folder: Path) -> dict[str, Any]:
    """The compiled program, without what no two runs share."""
    document: dict[str, Any] = json.loads((folder / "compiled.json").read_text())
    del document["manifest"]["created"], document["manifest"]["spend"]["seconds"], document["manifest"]["estimate"]
    for scores in document["manifest"]["scores"].values():
        del scores["seconds_per_row"]
    return document


def answers(folder: Path) -> list[str]:
    return (folder / ANSWERED).read_text().splitlines()


@pytest.mark.parametrize("fates", [["call 2", "line 9", "call 5"], ["line 3", "call 17", "line 30"]])
def test_a_compile_that_is_killed_again_and_again_ends_as_one_that_is_not(fates: list[str], tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    oneturn.compile(agent(whole))
    for fate in fates:
        assert compiled(broken, *fate.split()) == -signal.SIGKILL
    assert compiled(broken) == 0
    assert artifact(broken) == artifact(whole)
    lost = sum(fate.startswith("line") for fate in fates)  # answered, and killed before that was written down
    assert len(answers(broken)) == len(answers(whole)) + lost
    assert artifact(whole)["manifest"]["spend"]["lm_calls"] == len(answers(whole))


def test_the_same_command_again_asks_nothing_and_another_asks_anew(tmp_path: Path):
    first = oneturn.compile(agent(tmp_path))
    asked = len(answers(tmp_path))
    again = oneturn.compile(agent(tmp_path))
    assert len(answers(tmp_path)) == asked
    assert again.manifest.scores["after"]["lm_calls_per_row"] == first.manifest.scores["after"]["lm_calls_per_row"] > 0
    assert again.manifest.spend["lm_calls"] == first.manifest.spend["lm_calls"]
    oneturn.compile(agent(tmp_path, seed=1))
    assert len(answers(tmp_path)) == 2 * asked
    oneturn.compile(agent(tmp_path), fresh=True)
    assert len(answers(tmp_path)) == 3 * asked


def test_what_took_time_once_is_said_to_have_taken_it(tmp_path: Path):
    oneturn.compile(agent(tmp_path))
    (journal,) = tmp_path.glob(".oneturn/compile/*/journal.jsonl")
    slow = [json.loads(line) for line in journal.read_text().splitlines()]
    told = [{**line, "seconds": 100.0} if "response" in line else line for line in slow]
    journal.write_text("".join(json.dumps(line) + "\n" for line in told))
    assert oneturn.compile(agent(tmp_path)).manifest.scores["after"]["seconds_per_row"] > 100


def response(text: str) -> dict[str, Any]:
    return {"model": "m", "message": {"text": text}, "usage": {"input_tokens": 10, "output_tokens": 2}}


def test_a_journal_gives_the_answers_in_their_order_and_adds_up_what_they_cost(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    for text, cost in (("a", 0.5), ("b", None)):
        first.add("same", Answered(response(text), 1.0, cost))
    with path.open("a") as file:
        file.write('{"request":"half')
    second = Journal(path)
    texts = [second.answer("same", n) for n in range(3)]
    assert [found and found.response["message"]["text"] for found in texts] == ["a", "b", None]
    assert second.answer("other", 0) is None
    assert second.totals == Totals(lm_calls=2, prompt_tokens=20, completion_tokens=4, cost=0.5)
    second.add("other", Answered(response("c"), 1.0, 0.25))
    second.close()
    third = Journal(path)
    assert third.totals.cost == 0.75
    assert third.answer("other", 0) is not None
