"""A new user's first hour with each kind of project, from the wheel alone; see ``wheel_walk.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scaffold.wheel_walk import NAMES, main


@pytest.mark.fresh_env
@pytest.mark.parametrize("kind", NAMES)
def test_a_project_is_walked_from_a_wheel(kind: str, tmp_path: Path):
    assert main(["--folder", str(tmp_path / "walk"), "--kinds", kind]) == 0
