"""``as_program``: whatever a user has, as a program that yields steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import dspy

from oneturn.core.steps import Step
from oneturn.errors import ProgramError
from oneturn.programs.module import ModuleProgram


class Program(Protocol):
    """A declared signature, and a run as a stream of steps."""

    signature: type[dspy.Signature]

    @property
    def answer_field(self) -> str | None:
        """The output field whose text is the answer; ``None`` when all outputs are structured."""

    @property
    def citing_fields(self) -> tuple[str, ...]:
        """The output fields that hold ids of sources."""

    def steps(self, **inputs: Any) -> Iterator[Step]:
        """Run the program."""


def as_program(
    given: Any, signature: str | type[dspy.Signature] | None = None, answer_field: str | None = None
) -> Program:
    """Turn ``given`` into a program that yields steps.

    Args:
        given: a program that has ``steps``, which is left as it is; a ``dspy.Module``; or a function without arguments
            that builds one of them, which is called now.
        signature: what a ``dspy.Module`` takes and gives, where it doesn't say so itself; see :class:`ModuleProgram`.
        answer_field: the output field of a ``dspy.Module`` whose text is the answer; the first ``str`` one if not said.

    Raises:
        ProgramError: ``given`` is nothing of the kind, or a ``dspy.Module`` that can't be served as it is.
    """
    if hasattr(given, "steps") and not isinstance(given, type):
        if signature is not None or answer_field is not None:
            raise ProgramError(f"{type(given).__name__} has steps and a signature of its own: give it no other.")
        return cast(Program, given)
    if isinstance(given, dspy.Module):
        return ModuleProgram(given, signature, answer_field)
    if callable(given):
        return as_program(_built(given()), signature, answer_field)
    raise ProgramError(
        f"{_told(given)} is no program: give a dspy.Module, or an object that has steps and a signature."
    )


def _built(made: Any) -> Any:
    if callable(made) and not isinstance(made, dspy.Module) and not hasattr(made, "steps"):
        raise ProgramError(f"The function that builds the program gave {_told(made)}; it must give a dspy.Module.")
    return made


def _told(value: Any) -> str:
    return f"{value!r:.80}" if not callable(value) else getattr(value, "__name__", type(value).__name__)
