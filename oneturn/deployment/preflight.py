"""Preflight checks of a deployment."""

from __future__ import annotations

from collections.abc import Iterable

from oneturn.config import AgentConfig
from oneturn.core.findings import Finding, State
from oneturn.deployment.doctor.local import deployable
from oneturn.deployment.doctor.runner import check_workspace
from oneturn.errors import DeployError


def refuse_undeployable(config: AgentConfig) -> None:
    """Raise ``DeployError`` if the configuration can't be deployed; the message has one line per problem."""
    _refuse(finding for finding in deployable(config) if finding.state is State.problem)


def refuse_problems(config: AgentConfig) -> None:
    """Raise ``DeployError`` for problems of the configuration or of the workspace resources that it names."""
    refuse_undeployable(config)
    _refuse(check_workspace(config).problems(), "(`oneturn doctor` shows more; --no-check skips the workspace checks.)")


def _refuse(problems: Iterable[Finding], more: str | None = None) -> None:
    if lines := [problem.line() for problem in problems]:
        text = ["This configuration can't be deployed:", *lines, *([more] if more else [])]
        raise DeployError((" " if len(lines) == 1 else "\n").join(text))
