"""Tools: the decorator, approvals, and texts with sources."""

from oneturn.tools.approvals import Approvals, build_approvals
from oneturn.tools.decorator import tool
from oneturn.tools.ledger import DatabaseLedger, MemoryLedger
from oneturn.tools.registry import SourcedText, render_result

__all__ = [
    "Approvals",
    "DatabaseLedger",
    "MemoryLedger",
    "SourcedText",
    "build_approvals",
    "render_result",
    "tool",
]
