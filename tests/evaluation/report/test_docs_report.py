"""The example of the page about the report does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_example_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "docs").symlink_to(DOCS)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"^```python\n(.*?)^```", (DOCS / "report.md").read_text(), re.DOTALL | re.MULTILINE)
    assert code is not None
    exec(compile(code[1], "report.md", "exec", dont_inherit=True), {})
    assert "Against uncompiled" in (tmp_path / "report.html").read_text()
