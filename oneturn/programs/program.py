"""The ``Program`` protocol, and ``as_program``, which converts other objects to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import dspy

from oneturn.core.steps import Step
from oneturn.errors import ProgramError
from oneturn.programs.module import ModuleProgram
from oneturn.programs.signature import ending_tool
from oneturn.tools.decorator import options_of
from oneturn.tools.registry import tools_in


class Program(Protocol):
    """A program declares a signature and runs as a stream of steps.

    A program may have an attribute ``request_settings``: the names of the settings of a request, such as
    ``temperature``, that it applies (``oneturn.core.run_context``). A request with another one is refused.
    """

    signature: type[dspy.Signature]

    @property
    def answer_field(self) -> str | None:
        """The output field whose text is the answer; ``None`` when all outputs are structured."""

    @property
    def citing_fields(self) -> tuple[str, ...]:
        """The output fields that hold source ids."""

    def steps(self, **inputs: Any) -> Iterator[Step]:
        """Run the program and yield its steps."""


def as_program(
    given: Any, signature: str | type[dspy.Signature] | None = None, answer_field: str | None = None
) -> Program:
    """Convert ``given`` to a program that yields steps.

    Args:
        given: a program with a ``steps`` method, which is returned unchanged; a ``dspy.Module``, also a program whose
            ``forward`` an optimizer such as ``dspy.KNNFewShot`` has replaced; or a function without
            arguments that builds one of them, which is called immediately.
        signature: the signature of a ``dspy.Module`` that doesn't declare one; see :class:`ModuleProgram`.
        answer_field: the output field of a ``dspy.Module`` whose text is the answer; by default the first of type
            ``str``.

    Raises:
        ProgramError: ``given`` is of another type, or a ``dspy.Module`` that can't be served.
    """
    if hasattr(given, "steps") and not isinstance(given, type) and not _has_own_forward(given):
        if signature is not None or answer_field is not None:
            raise ProgramError(
                f"{type(given).__name__} has its own steps and signature: remove signature and answer_field."
            )
        return cast(Program, given)
    if isinstance(given, dspy.Module):
        return ModuleProgram(given, signature, answer_field)
    if callable(given):
        return as_program(_check_built(given()), signature, answer_field)
    raise ProgramError(
        f"{_describe(given)} is not a program: pass a dspy.Module, or an object with steps and a signature."
    )


def program_tools(program: Program | dspy.Module) -> dict[str, dspy.Tool]:
    """Return the tools of a program, at any depth, by name."""
    module = getattr(program, "module", program)  # unwrap a ModuleProgram
    parts = [module, *(part for _, part in module.named_sub_modules())] if isinstance(module, dspy.Module) else [module]
    return {str(tool.name): tool for part in parts for tool in tools_in(part) if tool.name != ending_tool(part)}


def guarded_tools(program: Program | dspy.Module) -> list[str]:
    """Return the names of the tools, at any depth of a program, that may need a person's approval."""
    return [name for name, tool in program_tools(program).items() if options_of(tool).approval]


def _has_own_forward(program: Any) -> bool:
    """Return whether an instance has a ``forward`` other than its class's, which its ``steps`` would go past."""
    forward = vars(program).get("forward") if isinstance(program, dspy.Module) else None
    return forward is not None and getattr(forward, "__func__", None) is not type(program).forward


def _check_built(program: Any) -> Any:
    if callable(program) and not isinstance(program, dspy.Module) and not hasattr(program, "steps"):
        raise ProgramError(
            f"The function that builds the program returned {_describe(program)}; it must return a dspy.Module."
        )
    return program


def _describe(value: Any) -> str:
    return f"{value!r:.80}" if not callable(value) else getattr(value, "__name__", type(value).__name__)
