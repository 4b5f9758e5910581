"""``Agent``: the declaration of one agent, used by the command line, the notebooks and the server."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import dspy

from oneturn.config import AgentConfig
from oneturn.config.loading import CONFIG_VARIABLE, environment_variable
from oneturn.core.examples import read_examples
from oneturn.core.serialization import plain
from oneturn.errors import DataError, ProgramError
from oneturn.lm import build_lm
from oneturn.programs import as_program
from oneturn.programs.state import load_compiled, read_manifest, tool_calling_change
from oneturn.responses import ResponsesAdapter
from oneturn.responses.request import question_field
from oneturn.tools.approvals import build_approvals

_log = logging.getLogger(__name__)

Metric = Callable[..., Any]
Recipe = Callable[..., dspy.Module]
"""``recipe(student, trainset=…, valset=…, metric=…, seed=…, threads=…)`` returns the compiled program."""


@dataclass(frozen=True)
class Agent:
    """Declaration of an agent: program, metric, examples, recipes and packaging.

    The first four are needed; the rest has defaults.

    Attributes:
        name: the agent's name in logs and in the registry.
        config: the agent's configuration.
        build: builds the uncompiled program.
        metric: scores an answer.
        examples: returns the examples of a split: ``"train"``, ``"dev"`` or ``"test"``. By default they are read from
            the files in the configuration's ``data.examples``, and the inputs are those of the program's signature.
        recipes: compile recipes by name; ``None`` for all of ``oneturn.compilation.recipes.RECIPES``.
        root: the agent's folder; paths in the configuration are relative to it. By default the folder of the file that
            declares the agent; in a logged model, the folder of its code.
        code_paths: the folders and files in ``root`` that are logged with the agent's file; ``None`` for the packages
            there, which are the folders with an ``__init__.py``, except ``tests`` and oneturn itself.
        example_questions: questions for the demo; the first one is the logged model's input example. Without any, that
            is made from the first training example.
        requirements: pip requirements besides oneturn's own dependencies.
    """

    name: str
    config: AgentConfig
    build: Callable[[], dspy.Module]
    metric: Metric
    examples: Callable[[str], list[dspy.Example]] = field(default_factory=lambda: _FolderExamples())
    recipes: Mapping[str, Recipe] | None = None
    root: Path = field(default_factory=lambda: _declaring_folder())
    code_paths: Sequence[str] | None = None
    example_questions: Sequence[str] = ()
    requirements: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.examples, _FolderExamples):  # dataclasses.replace passes that of the original
            object.__setattr__(self, "examples", _FolderExamples(self))
        if not self.config.mlflow.model_name:
            settings = self.config.mlflow.model_copy(update={"model_name": self.name})
            object.__setattr__(self, "config", self.config.model_copy(update={"mlflow": settings}))

    def lm(self) -> dspy.BaseLM:
        """Build the configured LM.

        Raises:
            ConfigError: no LM is configured, or its key is missing.
        """
        return build_lm(self.config.lm)

    def program_lm(self, program: dspy.Module) -> dspy.BaseLM | None:
        """Return the LM to run a program with: the configured one; or ``None`` if the program has its own.

        Raises:
            ConfigError: no LM is configured and a predictor has none, or its key is missing.
        """
        has_own = all(predictor.lm or dspy.settings.lm for _, predictor in program.named_predictors())
        return None if has_own and not self.config.lm.model else self.lm()

    def program(self, compiled: bool = True) -> dspy.Module:
        """Build the program.

        Args:
            compiled: load the configured compiled state, if any.

        Raises:
            ProgramError: the configured compiled program can't be loaded.
        """
        program = self.build()
        if compiled and self.config.compiled is not None:
            load_compiled(program, self.compiled_path)
        return program

    def serving_program(self) -> Any:
        """Return the compiled program with its LM set, for ``oneturn.ResponsesAdapter``.

        A program that was compiled for another way of tool calling is logged as a warning.
        """
        program = self.program()
        lm = self.program_lm(program)
        if lm is not None and all(predictor.lm is None for predictor in program.predictors()):
            program.set_lm(lm)
        elif lm is not None:  # as in an evaluation, a predictor keeps the LM that it was built with
            for predictor in program.predictors():
                predictor.lm = predictor.lm or lm
        if lm is not None and self.config.compiled is not None:
            change = tool_calling_change(read_manifest(self.compiled_path), program, lm)
            if change is not None:
                _log.warning("%s: %s. Run `oneturn compile`.", self.config.compiled, change)
        return program

    def adapter(self) -> ResponsesAdapter:
        """Return the adapter that serves the agent.

        It builds the program on first use, and reads the key of approvals when the first one is signed.
        """
        serve, approvals = self.config.serve, build_approvals(self.config.approvals, self.name)
        return ResponsesAdapter(self.serving_program, deadline=serve.deadline, approvals=approvals, stream=serve.stream)

    @property
    def examples_folder(self) -> Path:
        """The folder of example files, one per split."""
        return self.root / self.config.data.examples

    @property
    def logged_paths(self) -> tuple[str, ...]:
        """The folders and files that are logged with the agent's file: ``code_paths``, or the packages in ``root``."""
        if self.code_paths is not None:
            return tuple(self.code_paths)
        packages = (path.parent for path in self.root.glob("*/__init__.py"))
        return tuple(sorted(path.name for path in packages if path.name not in _NOT_LOGGED))

    def example_request(self) -> dict[str, Any]:
        """Return a request that the agent can answer: the first example question, or the first training example.

        Raises:
            ProgramError: there is neither.
        """
        if self.example_questions:
            return {"input": [{"role": "user", "content": self.example_questions[0]}]}
        try:
            inputs = plain(self.examples("train")[0].inputs().toDict())
        except (DataError, IndexError):
            raise ProgramError(
                f"{self.name} has no question to be tried with: add a training example to {self.examples_folder}, or "
                "set example_questions in agent.py."
            ) from None
        question = inputs.pop(question_field(as_program(self.build()).signature), None)
        request: dict[str, Any] = {"input": []}
        if question is not None:
            request["input"].append({"role": "user", "content": question})
        return request | ({"custom_inputs": inputs} if inputs else {})

    @property
    def compiled_path(self) -> Path:
        """The compiled program's file; without a configured one, ``data/compiled/<name>.json``: a compile writes it."""
        return self.root / (self.config.compiled or f"data/compiled/{self.name}.json")


_NOT_LOGGED = ("tests", "oneturn")


class _FolderExamples:
    """The default loader: reads the files in the examples folder."""

    def __init__(self, agent: Agent | None = None):
        self._agent = agent

    def __call__(self, split: str) -> list[dspy.Example]:
        """Return the examples of a split.

        Raises:
            DataError: there is no such split, or a row can't be read or lacks an input.
        """
        if self._agent is None:
            raise ProgramError("These examples belong to no agent.")
        return read_examples(self._agent.examples_folder, split, as_program(self._agent.build()).signature)


def _declaring_folder() -> Path:
    """Return the folder of the file that creates the agent; in a logged model, its ``code`` folder."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and (frame.f_globals is globals() or frame.f_code.co_name == "__init__"):
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    if file is None:  # a notebook
        return Path.cwd()
    folder = Path(file).resolve().parent
    return folder / "code" if (folder / "MLmodel").is_file() else folder


def load_agent(path: str | Path = "agent.py", config: str | Path | None = None) -> Agent:
    """Load the ``AGENT`` declared in a model file.

    Args:
        path: the model file; its folder is added to ``sys.path``.
        config: the configuration file to use instead of the model file's default.

    Raises:
        ProgramError: the file doesn't exist, or declares no ``AGENT``.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise ProgramError(f"There is no {file}. Run oneturn in the folder of your agent.py, or pass --agent PATH.")
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location("agent", file)
    if spec is None or spec.loader is None:
        raise ProgramError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["agent"] = module
    with _configured(config):
        spec.loader.exec_module(module)
    agent = getattr(module, "AGENT", None)
    if not isinstance(agent, Agent):
        raise ProgramError(f"{file} declares no AGENT; set AGENT = oneturn.Agent(…) in it.")
    return agent


@contextmanager
def _configured(config: str | Path | None) -> Iterator[None]:
    """Make ``AgentConfig.read`` use ``config`` inside the block."""
    if config is None:
        yield
        return
    with environment_variable(CONFIG_VARIABLE, str(Path(config).resolve())):
        yield
