"""``check``: run all checks in order of dependency; checks of a workspace run in parallel. Preflight checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.core.findings import Finding, Report, ok
from oneturn.deployment.doctor import local, program, workspace
from oneturn.deployment.doctor.local import deployable
from oneturn.deployment.doctor.workspace import NotSignedInError, WorkspaceIdentity, check_resource, connect_workspace
from oneturn.deployment.resources import resources_of, scopes_of

_Check = Callable[[], Iterator[Finding]]
_PARALLEL_CHECKS = 8


def check(
    agent: Agent,
    *,
    ask: bool = False,
    recipes: Collection[str] | None = None,
    seen: Callable[[Finding], object] = lambda finding: None,
) -> Report:
    """Check everything that an agent needs, without changing anything and without paid requests.

    Args:
        agent: the agent to check.
        ask: also send the LM a short question, which may cost a little.
        recipes: the names of the recipes that it can be compiled with; ``None`` for those that it declares.
        seen: called with each finding, in order, as soon as it is available.
    """
    return Report([*_local_findings(agent, ask, recipes, seen), *_remote_findings(agent.config, seen)])


def check_workspace(config: AgentConfig) -> Report:
    """Check the workspace resources and the MCP servers of a configuration."""
    return Report(list(_remote_findings(config, lambda finding: None)))


def _local_findings(
    agent: Agent, ask: bool, recipes: Collection[str] | None, seen: Callable[[Finding], object]
) -> list[Finding]:
    config = agent.config
    checks: list[_Check] = [
        local.python,
        local.model_code,
        partial(local.packages, config),
        partial(local.lm, config.lm) if config.lm.model else partial(local.own_lm, agent),
        partial(local.variables, config),
        partial(program.program, agent),
        partial(program.carried_code, agent),
        partial(local.recipe, config, tuple(agent.recipes or ()) if recipes is None else recipes),
        partial(local.port, config),
        *([partial(local.lm_answers, agent)] if ask else []),
        *([partial(deployable, config)] if _on_databricks(config) else []),
    ]
    findings: list[Finding] = []
    for run_check in checks:
        for finding in run_check():
            seen(finding)
            findings.append(finding)
    return findings


def _remote_findings(config: AgentConfig, seen: Callable[[Finding], object]) -> Iterator[Finding]:
    for finding in [*_workspace_findings(config), *local.servers(config.tools)]:
        seen(finding)
        yield finding


def _workspace_findings(config: AgentConfig) -> Iterator[Finding]:
    resources, scopes = resources_of(config), scopes_of(config)
    if not (resources or scopes or _on_databricks(config)):
        return
    try:
        session = connect_workspace()
    except NotSignedInError as error:
        yield error.finding
        return
    yield ok("workspace", f"{session.client.config.host}, as {session.name}")
    checks: list[_Check] = [partial(check_resource, session, resource) for resource in resources]
    if _on_databricks(config):
        checks += _tracking_checks(session, config)
    with ThreadPoolExecutor(_PARALLEL_CHECKS) as pool:
        for findings in pool.map(lambda run_check: list(run_check()), checks):
            yield from findings
    yield from workspace.check_user_access(config, scopes)


def _tracking_checks(session: WorkspaceIdentity, config: AgentConfig) -> list[_Check]:
    return [
        partial(workspace.experiment, session, config.mlflow.experiment),
        partial(workspace.model, session, config.mlflow.model_name),
        partial(workspace.secrets, session, config),
    ]


def _on_databricks(config: AgentConfig) -> bool:
    return config.mlflow.tracking_uri.startswith("databricks")
