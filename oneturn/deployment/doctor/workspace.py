"""A workspace as the doctor asks it: patient for seconds, not minutes, and its refusals as findings."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mlflow.models.resources import Resource

from oneturn.config import AgentConfig
from oneturn.core.findings import Finding, ok, problem, unknown, warning

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


def may(asker: Asker, kind: str, name: str, privilege: str) -> bool | None:
    """Whether a privilege is granted, to the asker or to a group of theirs; ``None`` if the catalog doesn't tell.

    Args:
        asker: who asks.
        kind: what it is, as Unity Catalog says: ``"FUNCTION"``, ``"TABLE"``, ``"SCHEMA"``, …
        name: its full name.
        privilege: such as ``"EXECUTE"``.
    """
    from databricks.sdk.errors.base import DatabricksError

    wanted, page = {privilege, "ALL_PRIVILEGES"}, None
    while True:
        try:
            found = asker.client.grants.get_effective(kind, name, page_token=page)
        except DatabricksError:  # to see grants is a privilege, too
            return None
        for assignment in found.privilege_assignments or ():
            held = {given.privilege.value for given in assignment.privileges or () if given.privilege}
            if assignment.principal in asker.principals and held & wanted:
                return True
        if not (page := found.next_page_token):
            return False


def named(asker: Asker, resource: Resource) -> Iterator[Finding]:
    """Look at one resource, as ``resources_of`` gives it."""
    kind, name = resource.type.value, resource.name  # type: ignore[attr-defined]  # every Databricks resource has one
    subject = f"{kind.replace('_', ' ')} {name}"
    look = _KINDS.get(kind)
    if look is None:
        yield unknown(subject, "not looked at")
        return
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield from look(asker, subject, name)
    except (DatabricksError, OSError) as error:
        yield refused(subject, error, lambda: _missing(asker, kind, name))


def _endpoint(asker: Asker, subject: str, name: str) -> Iterator[Finding]:
    found = asker.client.serving_endpoints.get(name)
    level = found.permission_level.value if found.permission_level else None
    if level == "CAN_VIEW":
        yield problem(subject, "you may see it, not ask it", "Ask its owner for the permission CAN QUERY.")
    elif found.state and found.state.ready and found.state.ready.value == "NOT_READY":
        yield problem(subject, "it isn't ready", "Its page in the workspace says why; wait, or start it.")
    else:
        yield ok(subject, f"ready{f', {level}' if level else ''}")


def _index(asker: Asker, subject: str, name: str) -> Iterator[Finding]:
    found = asker.client.vector_search_indexes.get_index(name)
    status = found.status
    if status is not None and status.ready is False:
        said = f"it isn't ready: {status.message or 'no reason is given'}"
        yield problem(subject, said, "Wait for its first sync; its page in the workspace says more.")
        return
    if found.endpoint_name:
        yield from _search_endpoint(asker, found.endpoint_name)
    rows = f", {status.indexed_row_count:,} rows" if status and status.indexed_row_count is not None else ""
    yield from _granted(asker, subject, "TABLE", name, "SELECT", f"ready{rows}")


def _search_endpoint(asker: Asker, name: str) -> Iterator[Finding]:
    subject = f"vector search endpoint {name}"
    status = asker.client.vector_search_endpoints.get_endpoint(name).endpoint_status
    state = status.state.value if status and status.state else None
    if state in (None, "ONLINE", "YELLOW_STATE"):
        yield ok(subject, state or "there")
    else:
        yield problem(subject, f"it is {state}", "Start it, or wait until it is ONLINE.")


def _function(asker: Asker, subject: str, name: str) -> Iterator[Finding]:
    asker.client.functions.get(name)
    yield from _granted(asker, subject, "FUNCTION", name, "EXECUTE", "there")


def _table(asker: Asker, subject: str, name: str) -> Iterator[Finding]:
    asker.client.tables.get(name)
    yield from _granted(asker, subject, "TABLE", name, "SELECT", "there")


def _connection(asker: Asker, subject: str, name: str) -> Iterator[Finding]:
    asker.client.connections.get(name)
    yield from _granted(asker, subject, "CONNECTION", name, "USE_CONNECTION", "there")


def _warehouse(asker: Asker, subject: str, name: str) -> Iterator[Finding]:
    found = asker.client.warehouses.get(name)
    state = found.state.value if found.state else "there"
    if state in ("DELETED", "DELETING"):
        yield problem(subject, f"it is {state}", "Name another warehouse.")
    elif state in ("STOPPED", "STOPPING") and not found.enable_serverless_compute:
        yield warning(subject, f"it is {state}", "It starts with the first call, which then waits for minutes.")
    else:
        yield ok(subject, f"{found.name or 'there'}, {state}")


def _genie(asker: Asker, subject: str, name: str) -> Iterator[Finding]:
    yield ok(subject, asker.client.genie.get_space(name).title or "there")


def _granted(asker: Asker, subject: str, kind: str, name: str, privilege: str, said: str) -> Iterator[Finding]:
    """It is there; and the privilege, as far as the catalog tells. Who owns a thing needs none."""
    granted = may(asker, kind, name, privilege)
    if granted:
        yield ok(subject, f"{said}, {privilege}")
    elif granted is None:
        yield ok(subject, f"{said}; who may use it isn't told")
    else:
        fix = f"Unless you own it: GRANT {privilege} ON {kind} {name} TO `{asker.name}`"
        yield warning(subject, f"{said}, and no grant of {privilege} to {asker.name} is seen", fix)


def _missing(asker: Asker, kind: str, name: str) -> str:
    """What to do where there is no such thing: for an endpoint, the names that there are."""
    if kind != "serving_endpoint":
        return "Check the name; Catalog Explorer shows what there is."
    from databricks.sdk.errors.base import DatabricksError

    try:
        names = [found.name for found in asker.client.serving_endpoints.list() if found.name]
    except DatabricksError as error:
        return f"Check the name; the endpoints can't be listed ({first_line(error)})."
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)[:3]
    return f"There are: {', '.join(near)}." if near else "The workspace has no serving endpoint that you may see."


_KINDS: dict[str, Callable[[Asker, str, str], Iterator[Finding]]] = {
    "serving_endpoint": _endpoint,
    "vector_search_index": _index,
    "function": _function,
    "table": _table,
    "uc_connection": _connection,
    "sql_warehouse": _warehouse,
    "genie_space": _genie,
}


_SECRET = re.compile(r"\{\{secrets/(?P<scope>[^/}]+)/(?P<key>[^/}]+)\}\}")


def experiment(asker: Asker, name: str) -> Iterator[Finding]:
    """The experiment of runs and traces, or the folder in which it would be made."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    subject = f"experiment {name}"
    if not name.startswith("/"):
        yield problem(subject, "it isn't a path", "Name it as the workspace does: /Shared/<name>, /Users/<you>/<name>.")
        return
    folder = str(PurePosixPath(name).parent)
    try:
        asker.client.experiments.get_by_name(name)
        yield ok(subject, "there")
    except NotFound:
        try:
            if folder != "/":
                asker.client.workspace.get_status(folder)
            yield ok(subject, "it is made when it is first used")
        except DatabricksError as error:
            fix = f"Run: databricks workspace mkdirs {folder}"
            yield problem(subject, f"its folder can't be seen ({first_line(error)})", fix)
    except DatabricksError as error:
        yield refused(subject, error, lambda: "Check the name.")


def model(asker: Asker, name: str) -> Iterator[Finding]:
    """The registered model, or the schema in which it would be made."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    subject, schema = f"registered model {name}", name.rpartition(".")[0]
    try:
        found = asker.client.registered_models.get(name)
        yield ok(subject, f"there, owned by {found.owner}" if found.owner else "there")
    except NotFound:
        yield from _schema(asker, subject, schema)
    except DatabricksError as error:
        yield refused(subject, error, lambda: "Check the name.")


def _schema(asker: Asker, subject: str, schema: str) -> Iterator[Finding]:
    from databricks.sdk.errors.base import DatabricksError

    try:
        asker.client.schemas.get(schema)
    except DatabricksError as error:
        said = f"it isn't there, and its schema {schema} can't be seen ({first_line(error)})"
        yield problem(subject, said, f"CREATE SCHEMA {schema}; or name another in mlflow.model_name.")
        return
    if may(asker, "SCHEMA", schema, "CREATE_MODEL") is False:
        fix = f"Unless you own the schema: GRANT CREATE MODEL ON SCHEMA {schema} TO `{asker.name}`"
        yield warning(subject, f"it isn't there, and no grant of CREATE MODEL to {asker.name} is seen", fix)
    else:
        yield ok(subject, "it is made when a version is first registered")


def secrets(asker: Asker, config: AgentConfig) -> Iterator[Finding]:
    """The secrets that the deployed agent's environment refers to: their names; no value is read."""
    for variable, value in config.deploy.environment.items():
        if found := _SECRET.fullmatch(value):
            yield _secret(asker, f"deploy.environment {variable}", found["scope"], found["key"])


def _secret(asker: Asker, subject: str, scope: str, key: str) -> Finding:
    from databricks.sdk.errors.base import DatabricksError

    try:
        keys = {secret.key for secret in asker.client.secrets.list_secrets(scope)}
    except DatabricksError as error:
        return refused(subject, error, lambda: f"Run: databricks secrets create-scope {scope}")
    if key in keys:
        return ok(subject, f"the secret {scope}/{key} is there")
    fix = f"Run: databricks secrets put-secret {scope} {key}"
    return problem(subject, f"the scope {scope} has no secret {key}", fix)


def whose(config: AgentConfig, scopes: list[str]) -> Iterator[Finding]:
    """What is done on behalf of whoever asks: only a request can show whether they may."""
    if scopes:
        yield unknown(
            "on behalf of users",
            f"what they may do isn't known here; their tokens need {', '.join(scopes)}",
            "An admin has to let agents act on behalf of users; see docs/tools-from-elsewhere.md.",
        )
