"""A few kills and races; ``python -m tests.proof.interruptions`` runs more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("work", "count", "what"), [("evaluate", 6, "killed"), ("compile", 4, "killed"), ("race", 4, "pairs")]
)
def test_nothing_is_lost_or_done_twice(work: str, count: int, what: str):
    command = [sys.executable, "-m", "tests.proof.interruptions", work, str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])[what] == count
