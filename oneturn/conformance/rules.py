"""All rules by name, and the collection of their violations."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from oneturn.conformance.endpoint_rules import HTTP, OPEN_RESPONSES
from oneturn.conformance.rule import Rule
from oneturn.conformance.stream_rules import CALLS, END, ITEMS, ORDER, TEXTS
from oneturn.core.findings import Finding
from oneturn.core.secrets import redact

Contract: TypeAlias = Literal["openresponses", "mlflow"]
"""What an endpoint promises: the Open Responses specification, or what MLflow asks of a ResponsesAgent."""

SECTIONS: dict[str, tuple[Rule, ...]] = {
    "The stream as a whole": ORDER,
    "Items": ITEMS,
    "Texts in deltas": TEXTS,
    "Calls": CALLS,
    "Terminal events, errors, types": END,
    "Over HTTP": HTTP,
    "Open Responses": OPEN_RESPONSES,
}

RULES: dict[str, Rule] = {rule.name: rule for section in SECTIONS.values() for rule in section}
"""All rules by name, in the order of the documentation."""


class Findings:
    """Collects violations of rules, without duplicates.

    Args:
        contract: the contract whose severities to use.
        weaker: whether to use the severities of MLflow's weaker contract.
    """

    def __init__(self, contract: Contract = "mlflow", weaker: bool = False):
        self.contract = contract
        self._weaker = weaker and contract == "mlflow"
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(self, rule: str, message: str, event: int | None = None) -> None:
        """Add a violation of the rule named ``rule``."""
        broken = RULES[rule]
        other = broken.weaker if self._weaker else broken.open_responses if self.contract == "openresponses" else None
        self._findings.setdefault((rule, message), Finding(other or broken.severity, rule, message, event=event))

    def in_order(self) -> list[Finding]:
        """Return the violations in stream order; those without an event last."""
        return sorted(self._findings.values(), key=lambda finding: (finding.event is None, finding.event or 0))


def format_value(value: Any, max_length: int = 60) -> str:
    """Return the ``repr`` of ``value`` for a message: shortened, without secrets."""
    text = redact(repr(value))
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
