"""The support desk's tools. The LM sees their docstrings and type hints."""

from pathlib import Path
from typing import Annotated

import dspy
import pandas as pd
from mlflow.entities import Document
from pydantic import Field

import oneturn
from modules.arithmetic import evaluate, plain


def handbook_search(retriever: oneturn.Retriever) -> dspy.Tool:
    """Build the tool ``search_handbook``, which returns the passages that a retriever finds."""

    def search_handbook(query: str) -> list[Document]:
        """Find passages of the handbook: prices, plans, limits, policies, dates, errors."""
        return retriever.search(query)

    return dspy.Tool(search_handbook, arg_desc={"query": "key words of what to find"})


def order_lookup(csv: Path) -> dspy.Tool:
    """Build the tool ``lookup_order`` for a CSV file of orders with an ``order_id`` column."""
    orders = pd.read_csv(csv, dtype=str, keep_default_na=False).set_index("order_id")

    def lookup_order(order_id: Annotated[str, oneturn.Seen(r"[Mm]-\d{4}")]) -> list[Document]:
        """Look up the record of an order whose number stands in the question."""
        key = order_id.strip().upper()
        if key not in orders.index:
            raise ValueError(f"there is no order {order_id!r}")
        record = {name: value for name, value in orders.loc[key].items() if value}
        text = "; ".join(f"{name}: {value}" for name, value in record.items())
        return [Document(page_content=text, metadata={"title": f"Order {key}", "doc_uri": f"orders/{key}"}, id=key)]

    return dspy.Tool(lookup_order)


Expression = Annotated[str, Field(pattern=r"^[0-9.+\-*/() ]{1,80}$")]


def calculate(expression: Expression) -> str:
    """Compute an expression of numbers only, such as 2 * 3.50 + 1."""
    return plain(evaluate(expression))
