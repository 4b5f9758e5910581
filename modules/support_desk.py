"""The support desk: the signature, kept by a ReAct module with three tools."""

from collections.abc import Sequence

import dspy

import oneturn
from data.support import ORDERS
from modules.tools import calculate, handbook_search, order_lookup
from signatures.answer import AnswerFromHandbook


def support_desk(
    retriever: oneturn.Retriever, max_iters: int = 6, thoughts: bool = False, more_tools: Sequence[dspy.Tool] = ()
) -> oneturn.ReAct:
    """Build the program, uncompiled.

    Args:
        retriever: what finds passages of the handbook.
        max_iters: the most LM steps a question may take.
        thoughts: whether the LM writes why it takes each step.
        more_tools: tools beside its own, such as ``oneturn.build_tools(config)`` gives.
    """
    tools = [handbook_search(retriever), order_lookup(ORDERS), dspy.Tool(calculate), *more_tools]
    return oneturn.ReAct(AnswerFromHandbook, tools=tools, max_iters=max_iters, thoughts=thoughts)
