"""``Agent``: one agent's whole declaration, as the command line, the notebooks and the server read it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspy

from oneturn.config import AgentConfig
from oneturn.config.loading import CONFIG_VARIABLE, variable
from oneturn.errors import ConfigError, ProgramError
from oneturn.lm import build_lm
from oneturn.programs.state import load_compiled
from oneturn.responses import ResponsesAdapter
from oneturn.tools.approvals import build_approvals

Metric = Callable[..., Any]
Recipe = Callable[..., dspy.Module]
"""``recipe(student, trainset=…, valset=…, metric=…, seed=…, threads=…)`` gives the compiled program."""


@dataclass(frozen=True)
class Agent:
    """What one agent is: how it is built, judged, taught and packed.

    Attributes:
        name: what it is called in logs and in the registry.
        config: its configuration.
        build: makes the uncompiled program.
        metric: how an answer is judged.
        examples: gives the examples of a split: ``"train"``, ``"dev"`` or ``"test"``.
        recipes: the ways to compile it, by name.
        code: the agent's model file (models-from-code), and the folders that travel with it.
        requirements: what it needs beyond oneturn's own dependencies.
        example_questions: what the logged model is tried with (the first one), and the demo asks.
    """

    name: str
    config: AgentConfig
    build: Callable[[], dspy.Module]
    metric: Metric
    examples: Callable[[str], list[dspy.Example]]
    recipes: Mapping[str, Recipe]
    root: Path
    code_paths: Sequence[str]
    example_questions: Sequence[str]
    requirements: Sequence[str] = field(default=())

    def lm(self) -> dspy.BaseLM:
        """The configured LM."""
        return build_lm(self.config.lm)

    def program(self, compiled: bool = True) -> dspy.Module:
        """The program: with the configured compiled state, or as it was declared.

        Raises:
            ProgramError: a compiled program is configured and can't be loaded.
        """
        program = self.build()
        if compiled and self.config.compiled is not None:
            load_compiled(program, self.compiled_path, on_drift=self.config.compiled_on_drift)
        return program

    def serving_program(self) -> Any:
        """The compiled program with its LM, ready for ``oneturn.ResponsesAdapter``."""
        program = self.program()
        program.set_lm(self.lm())
        return program

    def adapter(self) -> ResponsesAdapter:
        """What serves the agent: its program, built when it is first needed, with the configured limits.

        Raises:
            ConfigError: approvals are configured, and their key can't be had.
        """
        deadline, approvals = self.config.serve.deadline, build_approvals(self.config.approvals)
        return ResponsesAdapter(self.serving_program, deadline=deadline, approvals=approvals)

    @property
    def examples_folder(self) -> Path:
        """The folder that holds a file of examples for each split."""
        return self.root / self.config.data.examples

    @property
    def compiled_path(self) -> Path:
        """Where the compiled program stands.

        Raises:
            ConfigError: none is configured.
        """
        if self.config.compiled is None:
            raise ConfigError("compiled is not set: name the compiled program's file, such as data/compiled/mine.json.")
        return self.root / self.config.compiled


def load_agent(path: str | Path = "agent.py", config: str | Path | None = None) -> Agent:
    """Load the ``AGENT`` that a model file declares.

    Args:
        path: the model file; its folder becomes importable.
        config: the configuration to use instead of the file's own default.

    Raises:
        ProgramError: there is no such file, or it declares no ``AGENT``.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise ProgramError(f"There is no {file}. Run oneturn in the folder of your agent.py, or say --agent PATH.")
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
    """Let ``AgentConfig.read`` find ``config`` while the model file runs."""
    if config is None:
        yield
        return
    with variable(CONFIG_VARIABLE, str(Path(config).resolve())):
        yield
