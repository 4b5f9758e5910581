"""Declare tools, and what they return: the decorator, approvals, texts with their sources."""

from oneturn.tools.approvals import Approvals, build_approvals
from oneturn.tools.decorator import tool
from oneturn.tools.documents import SourcedText
from oneturn.tools.registry import render_result

__all__ = [
    "Approvals",
    "SourcedText",
    "build_approvals",
    "render_result",
    "tool",
]
