"""The support desk's signature: a question in, an answer with its sources out."""

import dspy

import oneturn


class AnswerFromHandbook(dspy.Signature):
    """Answer a customer's question about the Marlo coffee machine from the handbook and the order records only.

    Look facts up before you answer, compute with the calculator, and cite the id of every passage or order
    that you used. If they don't hold the answer, say that it is not in the handbook."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the answer alone, short: a number with its unit, a date, a status or a phrase")
    citations: list[oneturn.Citation] = dspy.OutputField(desc="ids of the passages and orders that the answer rests on")
    answerable: bool = dspy.OutputField(desc="false when the handbook and the orders don't hold the answer")
