"""A workspace as the doctor asks it: patient for seconds, not minutes, and its refusals as findings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from oneturn.doctor.finding import Finding, problem, unknown

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_SECONDS = 10
_HOW = (
    "Set DATABRICKS_HOST and DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET; or run "
    "`databricks auth login` and name the profile in DATABRICKS_CONFIG_PROFILE."
)


@dataclass(frozen=True)
class Asker:
    """A client of the workspace, and who asks.

    Attributes:
        client: the SDK's.
        name: the user's, or the service principal's.
        groups: those that it belongs to.
    """

    client: WorkspaceClient
    name: str
    groups: frozenset[str]

    @cached_property
    def principals(self) -> frozenset[str]:
        """Who a grant may be made to, for it to be theirs."""
        return self.groups | {self.name, "account users"}


class NotSignedInError(Exception):
    """There are no credentials, or they don't hold; carries the finding."""

    def __init__(self, finding: Finding):
        super().__init__(finding.said)
        self.finding = finding


def asker() -> Asker:
    """Whose credentials this machine has.

    Raises:
        NotSignedInError: nobody's, or nobody's that the workspace takes.
    """
    try:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.core import Config
    except ModuleNotFoundError:
        raise NotSignedInError(
            problem("workspace", "databricks-sdk isn't installed", 'Run: pip install "oneturn[databricks]"')
        ) from None
    host = "the workspace"
    try:
        with _quiet():
            config = Config(http_timeout_seconds=_SECONDS, retry_timeout_seconds=_SECONDS)
            host = config.host or host
            client = WorkspaceClient(config=config)
            found = client.current_user.me()
    except (ValueError, OSError, RuntimeError) as error:  # the SDK's own errors are OSErrors
        raise NotSignedInError(problem("workspace", _refusal(error, host), _HOW)) from None
    groups = frozenset(group.display for group in found.groups or () if group.display)
    return Asker(client, found.user_name or found.display_name or "", groups)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the SDK warns of while it looks for credentials is told by the finding."""
    logger = logging.getLogger("databricks.sdk")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _refusal(error: Exception, host: str) -> str:
    said = first_line(error)
    if "cannot configure default credentials" in said:
        return "there are no credentials here"
    return f"{host} can't be asked: {said}"


def first_line(error: Exception) -> str:
    """What an error says first, without what the SDK adds of the configuration."""
    said = next(iter(str(error).strip().splitlines()), "").partition(" Config: ")[0].rstrip(".")
    return said or type(error).__name__


def refused(subject: str, error: Exception, missing: Callable[[], str]) -> Finding:
    """What the workspace's refusal to tell of something means; ``missing`` says what to do if there is none."""
    from databricks.sdk.errors import InvalidParameterValue, NotFound, PermissionDenied

    if isinstance(error, NotFound | InvalidParameterValue):
        return problem(subject, f"there is none ({first_line(error)})", missing())
    if isinstance(error, PermissionDenied):
        return problem(subject, f"you may not see it ({first_line(error)})", "Ask its owner for permission.")
    return unknown(subject, f"the workspace didn't tell ({first_line(error)})")
