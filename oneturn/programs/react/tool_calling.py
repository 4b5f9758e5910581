"""Which way an LM is asked for its steps: by function calling, with a schema, or by the prompt alone.

A provider that refuses the tools or the schema of a request gets the next way, in this process and for this program
only: what it refuses is what the request contained, not function calling or schemas as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import dspy

from oneturn.errors import ProgramError
from oneturn.lm.capabilities import (
    TOOL_CALLING,
    ToolCalling,
    best_tool_calling,
    has_local_grammar,
    is_format_refusal,
    is_refused,
    remember_refusal,
    replays_reasoning,
    supports_free_text,
    supports_json_mode,
    supports_schema,
    takes_narrow_schemas,
)
from oneturn.programs.react.api_prompt import APIStepAdapter
from oneturn.programs.react.grounding import SeenValues
from oneturn.programs.react.native import NativeAdapter
from oneturn.programs.react.prompt import StepAdapter
from oneturn.programs.react.schema import StepSchema
from oneturn.programs.react.text_first import TextFirstAdapter
from oneturn.tools.registry import FINISH

ToolCallingOption = Literal["auto", "native", "schema", "text"]

# Claude and Gemini want signatures of the calls in the chat; those before an approval, of demos and history have none.
_ABOUT_SIGNATURE = re.compile(r"expected .?thinking|thought.?signature|must start with a thinking", re.IGNORECASE)
_ABOUT_CHOICE = re.compile(r"tool.?choice|forces? tool use|thinking", re.IGNORECASE)


def check_tool_calling(value: str) -> ToolCallingOption:
    """Return the option.

    Raises:
        ProgramError: there is no such option.
    """
    options: tuple[ToolCallingOption, ...] = ("auto", *TOOL_CALLING)
    for option in options:
        if option == value:
            return option
    raise ProgramError(f"tool_calling is {value!r}; it must be one of {', '.join(map(repr, options))}.")


class AdapterSelector:
    """Selects the adapter for the LM calls of one run.

    Args:
        lm: the LM.
        steps: the schema of a step.
        tool_calling: the way; ``auto`` chooses by what the LM can do.
        answer_field: the output field that holds the answer, if there is one.
    """

    def __init__(self, lm: dspy.BaseLM, steps: StepSchema, tool_calling: ToolCallingOption, answer_field: str | None):
        self._lm = lm
        self._steps = steps
        self._first: ToolCalling = best_tool_calling(lm) if tool_calling == "auto" else tool_calling
        self._answer_field = answer_field
        self._unsigned_as_text = False

    @property
    def narrows(self) -> bool:
        """Whether the schema of each step admits only what the run allows: so for an LM under a local grammar."""
        return has_local_grammar(self._lm) and self._first == "schema"

    @property
    def free_thought(self) -> bool:
        """Whether the thought is free text before the first step's JSON, which the LM has to support."""
        return self.narrows and self._steps.free_thought > 0 and supports_free_text(self._lm)

    @property
    def text_first(self) -> bool:
        """Whether a reply is text and then the outputs: so with free thoughts, and nothing to call but ``finish``."""
        return self.free_thought and self._steps.names == {FINISH}

    def adapter(self, allowed: Iterable[str], seen_values: SeenValues, first: bool = True) -> StepAdapter:
        """Return the adapter for the next step: the first whose tools or schema the provider hasn't refused.

        Args:
            allowed: the names that the step may call.
            seen_values: the values that the run has seen.
            first: whether it is the run's first step.
        """
        if self.text_first:
            return TextFirstAdapter(self._steps, seen_values)
        if self.narrows:
            return StepAdapter(self._steps, allowed, seen_values, self.free_thought, first)
        names = frozenset(allowed)
        *candidates, last = self._candidates(names)
        return next((each for each in candidates if not is_refused(self._lm, _format(each))), last)

    def falls_back(self, adapter: StepAdapter, error: Exception) -> bool:
        """Return whether ``error`` refuses the adapter's tools or schema, and another way is left.

        The refusal is remembered. After one that misses signatures of calls, those calls are written as text, in this
        run.
        """
        if isinstance(adapter, NativeAdapter) and not self._unsigned_as_text and _ABOUT_SIGNATURE.search(str(error)):
            self._unsigned_as_text = True
            return True
        if self.narrows or not is_format_refusal(error):
            return False
        *candidates, last = self._candidates(adapter.allowed)
        if _format(adapter) == _format(last):
            return False
        about_choice = bool(_ABOUT_CHOICE.search(str(error)))
        for each in candidates:
            if isinstance(adapter, NativeAdapter) and isinstance(each, NativeAdapter):
                refused = each.choice == adapter.choice if about_choice else each.narrow == adapter.narrow
            else:
                refused = _format(each) == _format(adapter)
            if refused:
                remember_refusal(self._lm, _format(each))
        return True

    def _candidates(self, allowed: frozenset[str]) -> Iterator[StepAdapter]:
        if self._first == "native":
            for narrow in (True,) if takes_narrow_schemas(self._lm) else (False, True):
                yield self._native(allowed, "required", narrow)
                yield self._native(allowed, "auto", narrow)
        if self._first == "schema" or (self._first == "native" and supports_schema(self._lm)):
            yield APIStepAdapter(self._steps, allowed, schema=True)
        if supports_json_mode(self._lm):
            yield APIStepAdapter(self._steps, allowed, schema=False)
        yield APIStepAdapter(self._steps, allowed, schema=False, json_mode=False)

    def _native(self, allowed: frozenset[str], choice: Literal["required", "auto"], narrow: bool) -> NativeAdapter:
        replay = replays_reasoning(self._lm)
        as_text = self._unsigned_as_text
        return NativeAdapter(self._steps, allowed, choice, narrow, self._answer_field, replay, as_text)


def _format(adapter: StepAdapter) -> dict[str, Any]:
    """Return what a provider may refuse of the adapter's requests."""
    if isinstance(adapter, NativeAdapter):
        return {"tools": adapter.steps.functions(adapter.narrow), "tool_choice": adapter.choice}
    if isinstance(adapter, APIStepAdapter):
        return adapter.response_format()
    return {}
