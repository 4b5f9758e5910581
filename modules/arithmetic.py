"""Exact arithmetic on an expression written by an LM. Only numbers and operators are evaluated."""

import ast
import operator
from collections.abc import Callable
from decimal import Decimal, DecimalException

_BINARY: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: dict[type[ast.unaryop], Callable[[Decimal], Decimal]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_NUMBER = frozenset("0123456789.")
_MAX_LENGTH = 200


def evaluate(expression: str) -> Decimal:
    """Return the decimal value of an expression of numbers, ``+ - * /`` and parentheses (0.1 + 0.2 is 0.3).

    Raises:
        ValueError: the expression is too long, divides by zero or contains anything else.
    """
    if len(expression) > _MAX_LENGTH:
        raise ValueError(f"the expression has {len(expression)} characters; at most {_MAX_LENGTH} are allowed")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body, expression)
    except SyntaxError:
        raise ValueError(f"{expression!r} is not an arithmetic expression such as 3 * 14.50 + 12") from None
    except DecimalException:
        raise ValueError(f"{expression!r} has no value (a division by zero?)") from None


def plain(value: Decimal) -> str:
    """Format a number with at most 4 decimals: two for cents, none for a whole number."""
    if value.adjusted() > 20:  # more digits than can be rounded
        return f"{value.normalize():f}"
    rounded = round(value, 4)
    if rounded == rounded.to_integral_value():
        return str(int(rounded))
    if rounded == round(rounded, 2):
        return f"{rounded:.2f}"
    return f"{rounded.normalize():f}"


def _value(node: ast.expr, expression: str) -> Decimal:
    if isinstance(node, ast.Constant):
        number = ast.get_source_segment(expression.strip(), node) or ""
        if set(number) <= _NUMBER:  # from the source text: exact, and no 1e999999, 0xff or True
            return Decimal(number)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left, expression), _value(node.right, expression))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand, expression))
    raise ValueError(f"{expression!r} holds more than numbers, + - * / and parentheses")
