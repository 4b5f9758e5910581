"""A calculator without the support desk's rules: any numbers, from the first step on."""

from typing import Annotated

from pydantic import Field

from modules.arithmetic import evaluate, plain


def calculate(expression: Annotated[str, Field(pattern=r"^[0-9.+\-*/() ]{1,80}$")]) -> str:
    """Compute an expression of numbers only, such as 2 * 3.50 + 1."""
    return plain(evaluate(expression))
