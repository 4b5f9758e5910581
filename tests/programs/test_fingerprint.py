"""Programs and functions that give other results have other fingerprints, and equal ones the same, in any process."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock, Mock

import dspy
import pytest

from oneturn.programs.fingerprint import digest, fingerprint, program_fingerprint
from oneturn.testing import ScriptedLM

THRESHOLD = 0.5


def helper(answer: str) -> float:
    return float(answer == "a")


def base(gold: Any, pred: Any, strict: bool = False) -> float:
    return 0.0 if strict else helper(pred.answer) * THRESHOLD


def other(gold: Any, pred: Any, strict: bool = False) -> float:
    return 1.0


def at_least(limit: Any) -> Callable[..., float]:
    def metric(gold: Any, pred: Any) -> float:
        return float(pred.value >= limit)

    return metric


class Metric:
    def __init__(self, limit: float):
        self._limit = limit
        self.calls = 0

    def __call__(self, gold: Any, pred: Any) -> float:
        self.calls += 1
        return float(pred.value >= self._limit)

    def strict(self, gold: Any, pred: Any) -> float:
        return float(pred.value > self._limit)


LAMBDAS = [lambda gold, pred: 1.0, lambda gold, pred: 0.0]
DIFFERENT = {
    "functions": (base, other),
    "partial functions": (functools.partial(base), functools.partial(base, strict=True)),
    "closures": (at_least(1), at_least(2)),
    "closures over functions": (at_least(base), at_least(other)),
    "lambdas on one line": (LAMBDAS[0], LAMBDAS[1]),
    "objects": (Metric(0.5), Metric(0.6)),
    "methods": (Metric(0.5).strict, Metric(0.6).strict),
    "built-in functions": (str.lower, str.upper),
}


@pytest.mark.parametrize("metric", [Mock(return_value=1.0), MagicMock(), Mock(spec=base), Mock(spec=Metric(1).strict)])
def test_a_mock_has_a_fingerprint_though_it_has_any_attribute(metric: Any):
    text = str(fingerprint(metric))
    assert "Mock" in text
    assert str(id(metric)) not in text


@pytest.mark.parametrize(("first", "second"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_metrics_have_different_fingerprints(first: Any, second: Any):
    assert digest(fingerprint(first)) != digest(fingerprint(second))


def test_what_a_metric_refers_to_is_part_of_it(monkeypatch: pytest.MonkeyPatch):
    before = digest(fingerprint(base))
    monkeypatch.setitem(globals(), "THRESHOLD", 0.7)
    assert digest(fingerprint(base)) != before
    monkeypatch.undo()
    assert digest(fingerprint(base)) == before
    monkeypatch.setitem(globals(), "helper", lambda answer: 1.0)
    assert digest(fingerprint(base)) != before


def test_a_counter_is_no_part_of_a_metric():
    metric = Metric(0.5)
    before = digest(fingerprint(metric))
    metric(None, dspy.Prediction(value=1.0))
    assert digest(fingerprint(metric)) == before == digest(fingerprint(Metric(0.5)))


class Program(dspy.Module):
    def __init__(self, style: Any = "short"):
        super().__init__()
        self.style = style
        self.log: list[str] = []
        self.answer = dspy.Predict("question -> answer")


def test_plain_attributes_and_the_lm_are_part_of_a_program():
    def of(program: dspy.Module, lm: dspy.BaseLM | None = None) -> str:
        return digest(program_fingerprint(program, lm))

    program = Program()
    assert of(program) == of(Program())
    styles = ["short", "long", 5, True, ["short"], ["long"], {"a": 1}, {"a": 2}]
    assert len({of(Program(style)) for style in styles}) == len(styles)
    program.log.append("asked")
    assert of(program) == of(Program())
    lms = [ScriptedLM(), ScriptedLM(temperature=0.7), dspy.LM("openai/x"), dspy.LM("openai/x", api_base="http://h")]
    lms.append(dspy.LM("openai/x", model_type="responses"))
    assert len({of(program, lm) for lm in lms}) == len(lms)
    assert of(program, dspy.LM("openai/x", api_key="a")) == of(program, dspy.LM("openai/x", api_key="b"))
    assert of(dspy.Predict("a -> b", temperature=0.7)) != of(dspy.Predict("a -> b"))


def test_fingerprints_are_equal_in_another_process():
    command = (
        "from tests.programs.test_fingerprint import *; from oneturn.evaluation import scorers; "
        "print(digest([[fingerprint(each) for pair in DIFFERENT.values() for each in pair], "
        "program_fingerprint(Program(), dspy.LM('openai/x'))]))"
    )
    runs = [subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_the_lms_of_a_program_that_cant_be_copied_stay():
    class Part(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
            self.lock = threading.Lock()

    class Program(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [Part()]

    program, lm = Program(), ScriptedLM([])
    program.set_lm(lm)
    program_fingerprint(program)
    assert program.parts[0].predict.lm is lm
