"""A rule of the protocol: what it requires of an endpoint, and why."""

from __future__ import annotations

from dataclasses import dataclass

from oneturn.core.findings import Severity


@dataclass(frozen=True)
class Rule:
    """A requirement of the protocol.

    Attributes:
        name: its name in reports.
        asks: the requirement, in one line.
        why: the consequence of breaking it.
        severity: the severity of a violation.
        weaker: the severity in a stream of MLflow's weaker contract, if it differs: one that has neither
            ``response.created`` nor ``response.output_item.added``. A stream with either must follow OpenAI's.
        open_responses: the severity under the contract of Open Responses, if it differs.
    """

    name: str
    asks: str
    why: str
    severity: Severity = Severity.error
    weaker: Severity | None = None
    open_responses: Severity | None = None


E, W, N = Severity.error, Severity.warning, Severity.note
"""The severities, short for tables of rules."""
