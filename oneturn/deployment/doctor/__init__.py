"""Diagnostics for an agent: ``oneturn doctor``.

``check(agent)`` checks everything the configuration refers to, without changing anything, and returns a ``Report``:
packages, weights and keys, and in a workspace endpoints, indexes, functions and permissions.
"""

from oneturn.core.findings import Finding, Report, Severity
from oneturn.deployment.doctor.runner import check

__all__ = ["Finding", "Report", "Severity", "check"]
