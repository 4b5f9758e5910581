"""Whether an agent can work here: ``oneturn doctor``.

What its configuration refers to is looked at, and nothing is changed: packages, weights, keys, and in a workspace
endpoints, indexes, functions, permissions. ``check(agent)`` gives a ``Report``.
"""

from oneturn.core.findings import Finding, Report, State
from oneturn.deployment.doctor.runner import check

__all__ = ["Finding", "Report", "State", "check"]
