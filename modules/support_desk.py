"""The support desk: a ReAct module with three tools."""

from collections.abc import Sequence
from typing import Literal

import dspy

import oneturn
from data.support import ORDERS
from modules.tools import calculate, handbook_search, order_lookup, read_orders
from signatures.answer import AnswerFromHandbook


def support_desk(
    retriever: oneturn.Retriever,
    max_iters: int = 6,
    thoughts: bool | Literal["free"] | None = True,
    more_tools: Sequence[dspy.Tool] = (),
    tool_calling: str = "auto",
) -> oneturn.ReAct:
    """Build the program, uncompiled.

    Args:
        retriever: finds passages of the handbook.
        max_iters: the maximum number of LM steps per question.
        thoughts: whether and how the LM writes a reason for each step.
        more_tools: further tools, such as those of ``oneturn.build_tools(config)``.
        tool_calling: how the LM is asked for its steps.
    """
    orders = read_orders(ORDERS)
    tools = [handbook_search(retriever, orders), order_lookup(orders), dspy.Tool(calculate), *more_tools]
    return oneturn.ReAct(
        AnswerFromHandbook,
        tools=tools,
        max_iters=max_iters,
        thoughts=thoughts,
        tool_calling=tool_calling,
        supported_citations=True,
    )
