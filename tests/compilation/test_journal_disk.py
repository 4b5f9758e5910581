"""A journal on a full disk, and one that belongs to an LM with other settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest

import oneturn
from oneturn.compilation.journal import Journal
from oneturn.compilation.plan import Plan
from oneturn.errors import OneTurnError, ProgramError
from oneturn.lm.local import local_lm
from tests.compilation.agent import ANSWERED, CountingAgent, agent

ROOT = Path(__file__).resolve().parents[2]
FULL = """
import resource, sys
from pathlib import Path
import oneturn
from oneturn.compilation.journal import Journal
from oneturn.errors import OneTurnError
from tests.compilation.agent import agent

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    oneturn.compile(agent(folder))
except OneTurnError as error:
    print(error)
    (journal,) = folder.glob(".oneturn/compile/*/journal.jsonl")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Journal(journal).close()  # the lock is released
"""


def test_full_disk_ends_a_compile_in_one_line_and_nothing_is_paid_twice(tmp_path: Path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "full"), "5000"]
    (tmp_path / "full").mkdir()
    full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "journal.jsonl can't be written: File too large. The answers before are saved" in full.stdout
    assert "Traceback" not in full.stderr
    assert not (tmp_path / "full" / "compiled.json").exists()
    oneturn.compile(agent(tmp_path / "full"))
    (tmp_path / "whole").mkdir()
    oneturn.compile(agent(tmp_path / "whole"))
    paid, needed = ((tmp_path / name / ANSWERED).read_text().splitlines() for name in ("full", "whole"))
    assert len(paid) <= len(needed) + 2, "the answers that found the disk full"


def test_folder_that_cannot_be_written_is_an_error_before_the_first_call(tmp_path: Path):
    (tmp_path / ".oneturn").write_text("")
    with pytest.raises(OneTurnError, match=r"journal\.jsonl can't be written: "):
        oneturn.compile(agent(tmp_path))
    assert not (tmp_path / ANSWERED).exists()


def test_program_that_cannot_be_written_is_one_line_and_costs_nothing_again(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgramError, match=r"compiled\.json can't be written: "):
        oneturn.compile(agent(tmp_path), save_to=tmp_path / "file" / "compiled.json")
    paid = len((tmp_path / ANSWERED).read_text().splitlines())
    assert oneturn.compile(agent(tmp_path)).path.is_file()
    assert len((tmp_path / ANSWERED).read_text().splitlines()) == paid


def test_replay_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    oneturn.compile(agent(tmp_path))
    paid = len((tmp_path / ANSWERED).read_text().splitlines())
    assert "recorded LM answers" not in caplog.text
    oneturn.compile(agent(tmp_path))
    assert f"Replaying {paid} recorded LM answers of this compile" in caplog.text
    assert len((tmp_path / ANSWERED).read_text().splitlines()) == paid


class Engine:
    """An engine that owns its connection."""

    def __init__(self, address: str, n_ctx: int = 4096, *, temperature: float = 0.0, token: str = "", **options: Any):
        self.address = address
        self._n_ctx = n_ctx
        self.temperature = temperature
        self.token = token
        self.options = options
        self.calls = 0

    def complete(self, request: Any) -> Any:
        raise AssertionError("no call is made")


def test_journal_is_not_replayed_if_the_lm_behind_the_name_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def journal(lm: dspy.LM) -> Path:
        monkeypatch.setattr(CountingAgent, "lm", lambda self: lm)
        return Plan.of(agent(tmp_path), None).folder

    one = dspy.LM("openai/x", api_base="http://one/v1", api_key="a")
    assert journal(one) == journal(dspy.LM("openai/x", api_base="http://one/v1", api_key="b")), "a key may rotate"
    others = [
        dspy.LM("openai/x", api_base="http://two/v1", api_key="a"),
        dspy.LM("openai/x", api_base="http://one/v1", api_key="a", temperature=0.5),
        dspy.LM("openai/x", api_base="http://one/v1", api_key="a", extra_headers={"x-deployment": "blue"}),
        dspy.LM("openai/x", engine=Engine("one")),
        dspy.LM("openai/x", engine=Engine("two")),
        dspy.LM("openai/x", engine=Engine("two", 8192)),
        dspy.LM("openai/x", engine=Engine("two", temperature=0.7)),
        dspy.LM("openai/x", engine=Engine("two", max_tokens=100)),
        local_lm("0.5B"),
        local_lm("0.5B", context=2048),
        local_lm("0.5B", max_tokens=64),
    ]
    assert len({journal(lm) for lm in [one, *others]}) == len(others) + 1
    used = Engine("two", token="another")
    used.calls = 7
    assert journal(dspy.LM("openai/x", engine=used)) == journal(others[4])
    monkeypatch.setenv("OPENAI_BASE_URL", "http://three/v1")
    assert journal(one) not in {journal(lm) for lm in others}


def test_journal_keeps_half_a_surrogate_pair(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal._write({"id": "half \ud83d"})
    journal.close()
    again = Journal(tmp_path / "journal.jsonl")
    assert again.id == "half \ud83d"
    again.close()
