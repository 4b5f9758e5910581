"""If the LM becomes unavailable, the compile ends, and resumes when the LM is available again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dspy.lm15 import AuthError, BillingError, RateLimitError, Request, Response, TransportError

import oneturn
from oneturn.errors import LMUnavailableError
from tests.compilation.agent import CountingLM, agent


class FailingLM(CountingLM):
    """An LM that raises ``error`` after ``answers`` answers."""

    def __init__(self, folder: Path, answers: int, error: BaseException):
        super().__init__(folder)
        engine = self.engine
        complete, self.calls = engine.complete, 0

        def complete_or_fail(request: Request) -> Response:
            self.calls += 1
            if self.calls > answers:
                raise error
            return complete(request)

        engine.complete = complete_or_fail


MESSAGES = {AuthError: "no such key", BillingError: "no credit", RateLimitError: "enough", TransportError: "no route"}


@pytest.mark.parametrize(
    ("answers", "settings"), [(0, {}), (12, {}), (12, {"threads": 2}), (3, {"recipe": "unchanged"})], ids=str
)
@pytest.mark.parametrize(
    "error", [kind(text) for kind, text in MESSAGES.items()], ids=lambda error: type(error).__name__
)
def test_unavailable_lm_ends_the_compile_without_saving_and_it_resumes_later(
    error: Exception, answers: int, settings: dict[str, Any], tmp_path: Path
):
    lm = FailingLM(tmp_path, answers, error)
    with pytest.raises(
        LMUnavailableError, match=f"The LM is unavailable: .*{MESSAGES[type(error)]}.* run the same command again"
    ):
        oneturn.compile(agent(tmp_path, lm, **settings))
    assert lm.calls <= answers + 8, "little more than one call per thread"
    assert not (tmp_path / "compiled.json").exists()
    (tmp_path / "whole").mkdir()
    whole = oneturn.compile(agent(tmp_path / "whole", **settings))
    resumed = oneturn.compile(agent(tmp_path, **settings))
    assert resumed.program.dump_state() == whole.program.dump_state()
    assert resumed.manifest.spend["lm_calls"] == whole.manifest.spend["lm_calls"]
