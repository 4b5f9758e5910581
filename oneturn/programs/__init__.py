"""Programs that yield steps: from a ``dspy.Module``, or from a callable that returns chat completion chunks."""

from oneturn.programs.chat_completions import ChatCompletionsProgram
from oneturn.programs.module import ModuleProgram
from oneturn.programs.program import Program, as_program, guarded_tools, program_tools

__all__ = ["ChatCompletionsProgram", "ModuleProgram", "Program", "as_program", "guarded_tools", "program_tools"]
