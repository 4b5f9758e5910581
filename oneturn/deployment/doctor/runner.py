"""``check``: all that can be looked at, in the order of need; what a workspace tells is asked for at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from oneturn.agent import Agent
from oneturn.config import AgentConfig
from oneturn.core.findings import Check, Finding, Report, State, ok
from oneturn.deployment.doctor import local as here
from oneturn.deployment.doctor import local as packages
from oneturn.deployment.doctor import local as servers
from oneturn.deployment.doctor import workspace as keeping
from oneturn.deployment.doctor.local import deployable
from oneturn.deployment.doctor.workspace import Asker, NotSignedInError, asker, named
from oneturn.deployment.resources import resources_of, scopes_of
from oneturn.errors import DeployError

_AT_ONCE = 8


def check(agent: Agent, *, ask: bool = False, seen: Callable[[Finding], object] = lambda finding: None) -> Report:
    """Look at everything that an agent needs; nothing is changed, and nothing is asked that costs.

    Args:
        agent: whose configuration it is.
        ask: ask the LM a short question, too; that may cost a little.
        seen: told each finding, in order, as soon as it is known.
    """
    return Report([*_here(agent, ask, seen), *_there(agent.config, seen)])


def check_workspace(config: AgentConfig) -> Report:
    """Look at what a configuration names in a workspace, and at the servers that it names."""
    return Report(list(_there(config, lambda finding: None)))


def refuse_undeployable(config: AgentConfig) -> None:
    """Raise ``DeployError`` with the problems of the configuration itself that prevent a deployment, one per line."""
    _refuse(finding for finding in deployable(config) if finding.state is State.problem)


def refuse_problems(config: AgentConfig) -> None:
    """Raise ``DeployError`` also if the workspace lacks something that the configuration names."""
    refuse_undeployable(config)
    _refuse(check_workspace(config).problems(), "(`oneturn doctor` tells more; --no-check deploys all the same.)")


def _here(agent: Agent, ask: bool, seen: Callable[[Finding], object]) -> list[Finding]:
    config = agent.config
    checks: list[Check] = [
        packages.python,
        partial(packages.packages, config),
        partial(here.lm, config.lm),
        partial(here.variables, config),
        partial(here.program, agent),
        partial(here.port, config),
        *([partial(here.lm_answers, agent)] if ask else []),
        *([partial(deployable, config)] if _on_databricks(config) else []),
    ]
    found: list[Finding] = []
    for look in checks:
        for finding in look():
            seen(finding)
            found.append(finding)
    return found


def _there(config: AgentConfig, seen: Callable[[Finding], object]) -> Iterator[Finding]:
    for finding in [*_in_workspace(config), *servers.servers(config.tools)]:
        seen(finding)
        yield finding


def _in_workspace(config: AgentConfig) -> Iterator[Finding]:
    resources, scopes = resources_of(config), scopes_of(config)
    if not (resources or scopes or _on_databricks(config)):
        return
    try:
        who = asker()
    except NotSignedInError as error:
        yield error.finding
        return
    yield ok("workspace", f"{who.client.config.host}, as {who.name}")
    looks: list[Check] = [partial(named, who, resource) for resource in resources]
    if _on_databricks(config):
        looks += _kept(who, config)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for found in pool.map(lambda look: list(look()), looks):
            yield from found
    yield from keeping.whose(config, scopes)


def _kept(who: Asker, config: AgentConfig) -> list[Check]:
    return [
        partial(keeping.experiment, who, config.mlflow.experiment),
        partial(keeping.model, who, config.mlflow.model_name),
        partial(keeping.secrets, who, config),
    ]


def _on_databricks(config: AgentConfig) -> bool:
    return config.mlflow.tracking_uri.startswith("databricks")


def _refuse(problems: Iterable[Finding], more: str | None = None) -> None:
    if lines := [problem.line() for problem in problems]:
        text = ["This configuration can't be deployed:", *lines, *([more] if more else [])]
        raise DeployError((" " if len(lines) == 1 else "\n").join(text))
