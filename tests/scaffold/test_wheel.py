"""A new user's first hour with each kind of project, from the wheel alone; see ``wheel_walk.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scaffold.wheel_walk import main


@pytest.mark.fresh_env
def test_projects_are_walked_from_a_wheel(tmp_path: Path):
    assert main(["--folder", str(tmp_path / "walk")]) == 0
