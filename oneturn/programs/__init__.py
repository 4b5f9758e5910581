"""Any program as one that yields steps: a ``dspy.Module``, or a callable that gives chat completion chunks."""

from oneturn.programs.chat_completions import ChatCompletionsProgram
from oneturn.programs.module import ModuleProgram
from oneturn.programs.program import Program, as_program

__all__ = ["ChatCompletionsProgram", "ModuleProgram", "Program", "as_program"]
