"""A compile that is started again resumes, and runs in one process at a time.

``tests/optimizers/test_killed.py`` tests killed compiles.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dspy.lm15 import Message, Response, TextPart
from dspy.lm15 import Usage as LMUsage

import oneturn
from oneturn.compilation import estimate_compile
from oneturn.compilation.journal import Journal, JournalEntry
from oneturn.config import BudgetConfig
from oneturn.core._dspy import response_from_dict, response_to_dict
from oneturn.core.usage import Usage
from oneturn.errors import DataError, OneTurnError
from tests.compilation.agent import ANSWERED, agent


def artifact(folder: Path) -> dict[str, Any]:
    """Return the compiled file without the values that differ between runs."""
    document: dict[str, Any] = json.loads((folder / "compiled.json").read_text())
    del document["manifest"]["created"], document["manifest"]["spend"]["seconds"], document["manifest"]["estimate"]
    for point in document["manifest"]["front"]:
        del point["seconds"]
    for scores in document["manifest"]["scores"].values():
        del scores["seconds_per_row"]
    return document


def answers(folder: Path) -> list[str]:
    return (folder / ANSWERED).read_text().splitlines()


def test_same_compile_makes_no_lm_calls_and_a_changed_one_does(tmp_path: Path):
    first = oneturn.compile(agent(tmp_path))
    calls = len(answers(tmp_path))
    again = oneturn.compile(agent(tmp_path))
    assert len(answers(tmp_path)) == calls
    assert again.manifest.scores["after"]["lm_calls_per_row"] == first.manifest.scores["after"]["lm_calls_per_row"] > 0
    assert again.manifest.spend["lm_calls"] == first.manifest.spend["lm_calls"]
    oneturn.compile(agent(tmp_path, seed=1))
    assert len(answers(tmp_path)) == 2 * calls
    oneturn.compile(agent(tmp_path), fresh=True)
    assert len(answers(tmp_path)) == 3 * calls


def test_replayed_answers_keep_their_duration(tmp_path: Path):
    oneturn.compile(agent(tmp_path))
    (journal,) = tmp_path.glob(".oneturn/compile/*/journal.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    slow = [{**line, "seconds": 100.0} if "response" in line else line for line in lines]
    journal.write_text("".join(json.dumps(line) + "\n" for line in slow))
    assert oneturn.compile(agent(tmp_path)).manifest.scores["after"]["seconds_per_row"] > 100


def response(text: str) -> dict[str, Any]:
    message = Message.assistant(TextPart(text))
    return response_to_dict(
        Response(id=None, model="m", message=message, finish_reason="stop", usage=LMUsage(input_tokens=1))
    )


def text_of(entry: JournalEntry | None) -> str | None:
    return None if entry is None else response_from_dict(entry.response).message.parts[0].text


ENTRY = {
    "request": "x",
    "at": 1.0,
    "seconds": 1.0,
    "usage": Usage(lm_calls=1).to_dict(),
    "response": response("a"),
}


def usage(cost: float | None) -> Usage:
    return Usage(lm_calls=1, input_tokens=10, output_tokens=2, cached_tokens=8, cost=cost)


def test_journal_replays_answers_in_order_and_sums_their_cost(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    for text, cost in (("a", 0.5), ("b", None)):
        first.add("same", JournalEntry(response(text), 1.0, usage(cost)))
    first.close()
    with path.open("a") as file:
        file.write('{"request":"half')
    second = Journal(path)
    entries = [second.answer("same", n) for n in range(3)]
    assert [text_of(entry) for entry in entries] == ["a", "b", None]
    assert second.answer("other", 0) is None
    assert second.totals == Usage(lm_calls=2, input_tokens=20, output_tokens=4, cached_tokens=16, cost=0.5)
    second.add("other", JournalEntry(response("c"), 1.0, usage(0.25)))
    second.close()
    third = Journal(path)
    assert third.totals.cost == 0.75
    assert third.answer("other", 0) is not None


def test_answer_is_flushed_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "journal.jsonl"
    on_disk: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: on_disk.append(path.read_text()))
    journal = Journal(path)
    journal.add("same", JournalEntry(response("a"), 1.0, usage(None)))
    assert on_disk[-1] == path.read_text()
    assert json.loads(on_disk[-1].splitlines()[-1])["request"] == "same"
    journal.close()


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[1]",
        '{"request": "x"}',
        "\0\0",
        '{"id": 5}',
        '{"started": "then"}',
        json.dumps({**ENTRY, "usage": 5}),
        json.dumps({**ENTRY, "usage": {**Usage().to_dict(), "lm_calls": "many"}}),
        json.dumps({**ENTRY, "at": None}),
        json.dumps({**ENTRY, "seconds": "x"}),
        json.dumps({**ENTRY, "request": ["x"]}),
        json.dumps({**ENTRY, "response": 5}),
        json.dumps({**ENTRY, "response": {"model": "m"}}),
    ],
)
def test_damaged_line_is_an_error_with_its_number_and_fix(damage: str, tmp_path: Path):
    whole = oneturn.compile(agent(tmp_path))
    (journal,) = tmp_path.glob(".oneturn/compile/*/journal.jsonl")
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:5], damage, *lines[6:], ""]))
    with pytest.raises(DataError, match=r"journal\.jsonl, line 6 is damaged .* --fresh"):
        oneturn.compile(agent(tmp_path))
    journal.write_text("\n".join([*lines[:5], *lines[6:], ""]))
    repaired = oneturn.compile(agent(tmp_path))
    assert repaired.program.dump_state() == whole.program.dump_state()
    assert len(answers(tmp_path)) == whole.manifest.spend["lm_calls"] + 1
    journal.write_text(damage + "\n")
    assert oneturn.compile(agent(tmp_path), fresh=True).after.score == whole.after.score


HOLD_JOURNAL = """
import sys
from pathlib import Path
from oneturn.compilation.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_journal_is_locked_by_one_process_and_released_when_it_is_killed(tmp_path: Path):
    first = oneturn.compile(agent(tmp_path))
    (journal,) = tmp_path.glob(".oneturn/compile/*/journal.jsonl")
    command = [sys.executable, "-c", HOLD_JOURNAL, str(journal)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        written = journal.read_text()
        for start in (oneturn.compile, estimate_compile, lambda agent: oneturn.compile(agent, fresh=True)):
            with pytest.raises(OneTurnError, match=f"already running, in process {holder.pid} on .*the same command"):
                start(agent(tmp_path))
        assert journal.read_text() == written, "the journal of the other process is unchanged"
        holder.send_signal(signal.SIGKILL)
    assert oneturn.compile(agent(tmp_path)).manifest.spend["lm_calls"] == first.manifest.spend["lm_calls"]


def test_resumed_compile_reports_the_original_spend_of_each_candidate(tmp_path: Path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    whole = oneturn.compile(agent(tmp_path / "whole"))
    oneturn.compile(agent(tmp_path / "stopped"), budget=BudgetConfig(lm_calls=20))
    resumed = oneturn.compile(agent(tmp_path / "stopped"))
    spent = [candidate.spent for candidate in whole.candidates]
    assert spent[0].lm_calls < spent[-1].lm_calls
    assert [candidate.spent for candidate in resumed.candidates] == spent
    again, once_more = (oneturn.compile(agent(tmp_path / "whole")) for _ in range(2))
    assert [candidate.spent for candidate in again.candidates] == spent
    seconds = [candidate.seconds for candidate in again.candidates]
    assert seconds == [candidate.seconds for candidate in once_more.candidates], "of the first measurement"
    assert seconds[0] < seconds[-1]
