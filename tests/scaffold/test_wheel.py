"""A new user's first hour, from the wheel alone. The other kinds: ``python -m tests.scaffold.wheel_walk``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scaffold.wheel_walk import main


@pytest.mark.fresh_env
def test_a_project_is_walked_from_a_wheel(tmp_path: Path):
    assert main(["--folder", str(tmp_path / "walk"), "--kinds", "react"]) == 0
