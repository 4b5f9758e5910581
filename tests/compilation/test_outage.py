"""An LM that goes away in the middle ends a compile, which goes on when it is there again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dspy.lm15 import AuthError, BillingError, RateLimitError, Request, Response, TransportError

import oneturn
from oneturn.errors import LMUnavailableError
from tests.compilation.agent import CountingLM, agent


class LeavingLM(CountingLM):
    """Answers so often, and then raises."""

    def __init__(self, folder: Path, answers: int, error: BaseException):
        super().__init__(folder)
        engine = self.engine
        complete, self.asked = engine.complete, 0

        def leaving(request: Request) -> Response:
            self.asked += 1
            if self.asked > answers:
                raise error
            return complete(request)

        engine.complete = leaving


TOLD = {AuthError: "no such key", BillingError: "no credit", RateLimitError: "enough", TransportError: "no route"}


@pytest.mark.parametrize(
    ("answers", "settings"), [(0, {}), (12, {}), (12, {"threads": 2}), (3, {"recipe": "as_it_is"})], ids=str
)
@pytest.mark.parametrize("error", [kind(told) for kind, told in TOLD.items()], ids=lambda error: type(error).__name__)
def test_it_ends_at_once_saves_nothing_and_goes_on(
    error: Exception, answers: int, settings: dict[str, Any], tmp_path: Path
):
    lm = LeavingLM(tmp_path, answers, error)
    with pytest.raises(
        LMUnavailableError, match=f"The LM is unavailable: .*{TOLD[type(error)]}.* run the same command again"
    ):
        oneturn.compile(agent(tmp_path, lm, **settings))
    assert lm.asked <= answers + 8, "not much more than each thread once"
    assert not (tmp_path / "compiled.json").exists()
    (tmp_path / "whole").mkdir()
    whole = oneturn.compile(agent(tmp_path / "whole", **settings))
    gone_on = oneturn.compile(agent(tmp_path, **settings))
    assert gone_on.program.dump_state() == whole.program.dump_state()
    assert gone_on.manifest.spend["lm_calls"] == whole.manifest.spend["lm_calls"]
