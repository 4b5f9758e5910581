"""Preflight checks of a deployment."""

from __future__ import annotations

from collections.abc import Iterable

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.core.findings import Finding, Severity
from oneturn.deployment.doctor.local import deployable
from oneturn.deployment.doctor.program import unsigned_approvals
from oneturn.deployment.doctor.runner import check_workspace
from oneturn.errors import ConfigError, DeployError
from oneturn.programs import guarded_tools


def refuse_undeployable(config: AgentConfig, app: bool = False) -> None:
    """Raise ``DeployError`` if the configuration can't be deployed; the message has one line per problem.

    Args:
        config: the agent's configuration.
        app: whether it is deployed as an app.
    """
    _refuse(finding for finding in deployable(config, app) if finding.severity is Severity.error)


def refuse_problems(config: AgentConfig, app: bool = False) -> None:
    """Raise ``DeployError`` for problems of the configuration or of the workspace resources that it names."""
    refuse_undeployable(config, app)
    _refuse(check_workspace(config).errors(), "(`oneturn doctor` shows more; --no-check skips the workspace checks.)")


def refuse_unsigned_approvals(agent: Agent) -> None:
    """Raise ``ConfigError`` if a tool may need a person's approval, and no key is configured to sign it."""
    if agent.config.approvals.key_env is None and (tools := guarded_tools(agent.build())):
        raise ConfigError(unsigned_approvals(tools))


def _refuse(problems: Iterable[Finding], more: str | None = None) -> None:
    if lines := [f"{problem.check}: {problem.message}. {problem.fix}".strip() for problem in problems]:
        text = ["This configuration can't be deployed:", *lines, *([more] if more else [])]
        raise DeployError((" " if len(lines) == 1 else "\n").join(text))
