"""The support desk's tools. The LM sees their docstrings and type hints."""

import re
from pathlib import Path
from typing import Annotated

import dspy
import pandas as pd
from mlflow.entities import Document
from pydantic import Field

import oneturn
from modules.arithmetic import evaluate, plain

_ORDER_ID = r"[Mm]-\d{4}"
_WHAT_RULES_DEPEND_ON = ("plan", "country", "item")


def handbook_search(retriever: oneturn.Retriever, orders: pd.DataFrame) -> dspy.Tool:
    """Build the tool ``search_handbook``, which returns the passages that a retriever finds.

    The handbook has rules by plan, country and item, and none for an order's number. So a query that names an order is
    searched with these of the order, too, and the order's record comes first.
    """

    def search_handbook(query: str) -> list[Document]:
        """Find passages of the handbook: prices, plans, limits, policies, dates, errors."""
        named = dict.fromkeys(order.upper() for order in re.findall(_ORDER_ID, query))
        known = [order for order in named if order in orders.index]
        more = [orders.loc[order][name] for order in known for name in _WHAT_RULES_DEPEND_ON]
        return [*(_record(orders, order) for order in known), *retriever.search(" ".join([query, *more]))]

    return dspy.Tool(search_handbook, arg_desc={"query": "key words of what to find"})


def read_orders(csv: Path) -> pd.DataFrame:
    """Read a CSV file of orders with an ``order_id`` column, which becomes the index; all cells are text."""
    return pd.read_csv(csv, dtype=str, keep_default_na=False).set_index("order_id")


def order_lookup(orders: pd.DataFrame) -> dspy.Tool:
    """Build the tool ``lookup_order`` for the orders that :func:`read_orders` returns."""

    def lookup_order(order_id: Annotated[str, oneturn.Seen(_ORDER_ID)]) -> list[Document]:
        """Look up the record of an order whose number stands in the question."""
        key = order_id.strip().upper()
        if key not in orders.index:
            raise ValueError(f"there is no order {order_id!r}")
        return [_record(orders, key)]

    return dspy.Tool(lookup_order)


def _record(orders: pd.DataFrame, order: str) -> Document:
    text = "; ".join(f"{name}: {value}" for name, value in orders.loc[order].items() if value)
    return Document(page_content=text, metadata={"title": f"Order {order}", "doc_uri": f"orders/{order}"}, id=order)


Expression = Annotated[str, Field(pattern=r"^[0-9.+\-*/() ]{1,80}$"), oneturn.SeenNumbers()]


def calculate(expression: Expression) -> str:
    """Compute an expression of numbers only, such as 2 * 3.50 + 1."""
    return plain(evaluate(expression))
