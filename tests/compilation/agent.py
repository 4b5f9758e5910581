"""An agent that is compiled by an LM that counts what it answers."""

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
    """Right in six cases of ten, which ones depends on the whole prompt.

    Args:
        folder: where it counts its answers, a line each.
        right: in how many cases of ten it is right where a demo stands in the prompt.
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
        raise AssertionError("nobody reads along")


def examples(split: str) -> list[dspy.Example]:
    """Questions whose answer is the question."""
    names = [f"{split}-{number}" for number in range(8)]
    return [dspy.Example(question=name, answer=name).with_inputs("question") for name in names]


def right(gold: dspy.Example, pred: Any, trace: Any = None) -> float:
    """Whether the answer is the question."""
    return float(pred.answer == gold.answer)


@oneturn.recipe(lambda train, dev: Work(runs=(3 * dev, 5 * dev + 3 * train), prompt_growth=(1, 3)))
def search(student: Any, *, trainset: Any, valset: Any, metric: Any, seed: int, threads: int) -> Any:
    """Some sets of demos, drawn at random."""
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=metric, max_bootstrapped_demos=2, max_labeled_demos=0, num_candidate_programs=3, num_threads=threads
    )
    return optimizer.compile(student, trainset=trainset, valset=valset)


class CountingAgent(Agent):
    """An agent with an LM of its own."""

    def lm(self) -> dspy.BaseLM:
        """The LM that was put there."""
        return LMS[self.root]


LMS: dict[Path, dspy.BaseLM] = {}


def agent(folder: Path, lm: dspy.BaseLM | None = None, mlflow: dict[str, Any] | None = None, **settings: Any) -> Agent:
    """The agent, with its folder."""
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
        recipes={"search": search, "as_it_is": lambda student, **_: student},
        root=folder,
        code_paths=(),
        example_questions=("one",),
    )
