"""What the system message says about steps: their format, and the tools."""

from __future__ import annotations

from oneturn.lm.free_text import BEFORE_JSON
from oneturn.programs.react.schema import StepSchema
from oneturn.tools.registry import FINISH

_PROTOCOL = """\
You work in steps. {step} {shape}
It calls exactly one tool;{together} you then read its result and take the next step. Take arguments from the question \
or from results, never invent them. As soon as the results hold the answer, or can't, call finish. The tools:
{tools}"""
_STEP = "Every step is one JSON object:"
_FREE_STEP = (
    f'First reason about the question in plain text, step by step. Then, after "{BEFORE_JSON}", write one JSON object, '
    "which calls finish if the reasoning holds the answer, and a tool for what it lacks. Every further step is a JSON "
    "object only:"
)
_WITHOUT_TOOLS = """\
Reply with one JSON object: {shape}
It holds the final outputs, which are the arguments of:
{tools}"""
UNPARSABLE = "Error: that was not one JSON object with a tool_call. Write only the JSON object."
UNPARSABLE_OUTPUTS = "Error: that was no JSON object of the outputs. Write the text, and then the JSON object."
CALL_AGAIN = f"Call {FINISH} again with outputs that fit."
WRITE_AGAIN = "Write the text and the JSON object again, with outputs that fit."
REMINDER = f'\n\nReason step by step, then write "{BEFORE_JSON}" and the JSON object.'
"""Follows the question: a small LM forgets what the system message says about it, and reasons up to its limit."""
_OUTPUTS_REMINDER = (
    "\n\nReason where it helps. Then write the {output} on a line of its own, "
    'after "{marker}", and the JSON object {shape}.'
)
_UNSTATED_REMINDER = "\n\nReason where it helps. Then write the JSON object {shape} on a line of its own."
_TOGETHER = " further calls that don't need its result go into parallel_calls, and all are made at the same time;"


def protocol(steps: StepSchema, free_thought: bool, full: bool) -> str:
    """Return the format of a step, and the tools.

    A small LM that reads about steps and results answers in their words, so a program without tools is asked for its
    outputs.

    Args:
        steps: the schema of a step.
        free_thought: whether the first step has a thought in free text before its JSON, and no other step has one.
        full: whether to tell all that the schema would.
    """
    tools = steps.description(full)
    in_json = steps.thoughts and not free_thought
    if steps.names == {FINISH}:
        thought = '"thought": "<reasoning, step by step>", ' if in_json else ""
        shape = f'{{{thought}"tool_call": {{"name": "{FINISH}", "args": {{…}}}}}}'
        return _WITHOUT_TOOLS.format(shape=shape, tools=tools)
    thought = '"thought": "<why, in a few words>", ' if in_json else ""
    more = ', "parallel_calls": []' if steps.parallel else ""
    shape = f'{{{thought}"tool_call": {{"name": "<tool>", "args": {{…}}}}{more}}}'
    step = _FREE_STEP if free_thought else _STEP
    return _PROTOCOL.format(step=step, shape=shape, together=_TOGETHER if steps.parallel else "", tools=tools)


def outputs_reminder(steps: StepSchema) -> str:
    """Return what follows each question of a program without tools: text that ends in an output, then all outputs.

    The text states the first output that is no list or object, which decides the others: with ``answer_last``, the
    answer only if there is no other.
    """
    types, stated = steps.output_types, steps.stated_output
    shape = [f'"{name}": ' + (f'"<{name}>"' if types[name] == "string" else f"<{name}>") for name in steps.outputs]
    text = _UNSTATED_REMINDER if stated is None else _OUTPUTS_REMINDER
    return text.format(marker=BEFORE_JSON, output=stated, shape=f"{{{', '.join(shape)}}}")
