"""A new user's first hour, from the wheel alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scaffold.wheel_walk import NAMES, main


@pytest.mark.fresh_env
def test_each_kind_of_project_is_walked_from_a_wheel(tmp_path: Path):
    assert main(["--folder", str(tmp_path), "--kinds", *NAMES]) == 0
