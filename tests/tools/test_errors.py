"""What the LM and the client read of a tool that failed."""

from __future__ import annotations

import pytest

from oneturn.errors import ToolError
from oneturn.tools.errors import told_to_lm


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ToolError("there is no order 'M-1';\n  ask for its number"), "there is no order 'M-1'; ask for its number"),
        (ValueError("1/0 isn't a number and/or a sum"), "1/0 isn't a number and/or a sum"),
        (KeyError("gold"), "'gold'"),
        (ValueError(), "ValueError"),
        (ToolError("x" * 300), "x" * 199 + "…"),
        (FileNotFoundError(2, "No such file", "/srv/agent/keys.json"), "the tool failed (FileNotFoundError)"),
        (RuntimeError("password is hunter2"), "the tool failed (RuntimeError)"),
        (ValueError("can't read /srv/agent/keys.json: empty"), "can't read …: empty"),
        (ValueError(r"can't read C:\\agent\\keys.json"), "can't read …"),
        (ValueError("see https://docs.test/a/b"), "see https://docs.test/a/b"),
        (ValueError("no answer from https://me:pa55@db.test/x"), "no answer from https://…@db.test/x"),
        (ValueError("refused: Bearer abc.def"), "refused: Bearer …"),
        (ValueError("refused: dapi0123456789abcdef"), "refused: …"),
        (ValueError("token=abc is old"), "token=… is old"),
    ],
)
def test_one_line_without_path_or_secret(error: Exception, told: str):
    assert told_to_lm(error) == told
