"""The simplest baseline: one chat message with the task and the inputs, and a free text as the answer."""

from __future__ import annotations

from typing import Any

import dspy

PROMPT = """{instructions}

{inputs}

Think step by step. Then write the answer on a line of its own, after "Answer:"."""


class PlainChat(dspy.Module):
    """Ask the LM without an adapter, tools or demos; the whole reply is the first output.

    Args:
        signature: the inputs, the instructions, and the output that the reply becomes.
    """

    def __init__(self, signature: type[dspy.Signature]):
        super().__init__()
        self.signature = signature

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Return the reply as the first output."""
        lines = [f"{name}: {inputs[name]}" for name in self.signature.input_fields]
        prompt = PROMPT.format(instructions=self.signature.instructions, inputs="\n\n".join(lines))
        (reply,) = dspy.settings.lm(messages=[{"role": "user", "content": prompt}])
        text = reply if isinstance(reply, str) else reply["text"]
        return dspy.Prediction(**{next(iter(self.signature.output_fields)): text})
