"""``Agent``: the declaration of one agent, used by the command line, the notebooks and the server."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspy

from oneturn.config import AgentConfig
from oneturn.config.loading import CONFIG_VARIABLE, environment_variable
from oneturn.errors import ConfigError, ProgramError
from oneturn.lm import build_lm
from oneturn.programs.state import load_compiled, read_manifest, tool_calling_change
from oneturn.responses import ResponsesAdapter
from oneturn.tools.approvals import build_approvals

_log = logging.getLogger(__name__)

Metric = Callable[..., Any]
Recipe = Callable[..., dspy.Module]
"""``recipe(student, trainset=…, valset=…, metric=…, seed=…, threads=…)`` returns the compiled program."""


@dataclass(frozen=True)
class Agent:
    """Declaration of an agent: program, metric, examples, recipes and packaging.

    Attributes:
        name: the agent's name in logs and in the registry.
        config: the agent's configuration.
        build: builds the uncompiled program.
        metric: scores an answer.
        examples: returns the examples of a split: ``"train"``, ``"dev"`` or ``"test"``.
        recipes: compile recipes by name.
        root: the agent's folder; paths in the configuration are relative to it.
        code_paths: the agent's model file (models-from-code) and the folders logged with it.
        example_questions: questions for the demo; the first one is the logged model's input example.
        requirements: pip requirements besides oneturn's own dependencies.
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
        """Build the configured LM."""
        return build_lm(self.config.lm)

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
        program, lm = self.program(), self.lm()
        program.set_lm(lm)
        if self.config.compiled is not None:
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
    def compiled_path(self) -> Path:
        """The compiled program's file.

        Raises:
            ConfigError: no compiled program is configured.
        """
        if self.config.compiled is None:
            raise ConfigError("compiled is not set. Set it to a compiled program, such as data/compiled/mine.json.")
        return self.root / self.config.compiled


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
