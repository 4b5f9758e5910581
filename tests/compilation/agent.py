"""An agent for compile tests, with an LM that logs its answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

import oneturn
from oneturn.agent import Agent
from oneturn.compilation import Work

ANSWERED = "answered.txt"


class CountingLM(dspy.LM):
    """An LM that is right in six of ten cases, depending on a hash of the prompt.

    Args:
        folder: the folder of the log, with one line per answer.
        right: the number of right answers in ten.
        name: the model's name.
    """

    def __init__(self, folder: Path, right: int = 6, name: str = "counting/lm"):
        super().__init__(name, engine=_Engine(folder, right), cache=False, num_retries=0)


class _Engine:
    supports_response_schema = True
    supported_params = frozenset({"response_format", "temperature"})

    def __init__(self, folder: Path, right: int):
        self._log = folder / ANSWERED
        self._right = right

    def complete(self, request: Request) -> Response:
        texts = [part.text for message in request.messages for part in message.parts]
        digest = hashlib.sha256("\n".join(texts).encode()).digest()
        question = texts[-1].removeprefix("question: ")
        answer = question if digest[0] % 10 < self._right else "?"
        with self._log.open("a") as log:
            log.write(f"{question}\n")
        text = json.dumps({"tool_call": {"name": "finish", "args": {"answer": answer}}})
        message = Message.assistant(TextPart(text))
        usage = Usage(input_tokens=len(" ".join(texts)), output_tokens=len(text))
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def stream(self, request: Request) -> Iterator[Any]:
        raise AssertionError("a compile doesn't stream the LM")


def examples(split: str) -> list[dspy.Example]:
    """Return examples whose answer is the question."""
    names = [f"{split}-{number}" for number in range(8)]
    return [dspy.Example(question=name, answer=name).with_inputs("question") for name in names]


def right(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    """Score whether the answer equals the question."""
    return float(pred.answer == gold.answer)


@oneturn.recipe(lambda train, dev: Work(runs=(3 * dev, 5 * dev + 3 * train), prompt_growth=(1, 3)))
def search(student: Any, *, trainset: Any, valset: Any, metric: Any, seed: int, threads: int) -> Any:
    """Use it in tests: several random sets of demos."""
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=metric, max_bootstrapped_demos=2, max_labeled_demos=0, num_candidate_programs=3, num_threads=threads
    )
    return optimizer.compile(student, trainset=trainset, valset=valset)


class CountingAgent(Agent):
    """An agent with the LM in ``LMS``."""

    def lm(self) -> dspy.BaseLM:
        """Return the LM of this agent's folder."""
        return LMS[self.root]


LMS: dict[Path, dspy.BaseLM] = {}


def agent(folder: Path, lm: dspy.BaseLM | None = None, mlflow: dict[str, Any] | None = None, **settings: Any) -> Agent:
    """Create the agent in ``folder``."""
    LMS[folder] = lm or CountingLM(folder)
    compile_settings = {"recipe": "search", **settings}
    return CountingAgent(
        name="parrot",
        config=oneturn.AgentConfig.read(
            {"compiled": "compiled.json", "compile": compile_settings, "mlflow": mlflow or {}}
        ),
        build=lambda: oneturn.ReAct("question -> answer", tools=[], thoughts=False),
        metric=right,
        examples=examples,
        recipes={"search": search, "unchanged": lambda student, **_: student},
        root=folder,
        code_paths=(),
        example_questions=("one",),
    )
