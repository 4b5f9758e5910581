"""Checks of a Databricks workspace, with short timeouts; errors of the workspace become findings."""

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
from oneturn.core.databricks_auth import workspace_client
from oneturn.core.findings import Finding, ok, problem, unknown, warning
from oneturn.errors import ConfigError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


_SIGN_IN_FIX = (
    "Set DATABRICKS_HOST and DATABRICKS_TOKEN; or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET; or run "
    "`databricks auth login` and name the profile in DATABRICKS_CONFIG_PROFILE."
)


@dataclass(frozen=True)
class WorkspaceIdentity:
    """A workspace client and its identity.

    Attributes:
        client: the SDK's client.
        name: the name of the user or service principal.
        groups: the groups of this identity.
    """

    client: WorkspaceClient
    name: str
    groups: frozenset[str]

    @cached_property
    def principals(self) -> frozenset[str]:
        """The principals whose grants apply to this identity."""
        return self.groups | {self.name, "account users"}


class NotSignedInError(Exception):
    """Credentials are missing or invalid; carries the finding."""

    def __init__(self, finding: Finding):
        super().__init__(finding.message)
        self.finding = finding


def connect_workspace() -> WorkspaceIdentity:
    """Connect to the workspace with the credentials of this machine.

    Raises:
        NotSignedInError: there are no credentials, or the workspace rejects them.
    """
    host = "the workspace"
    try:
        with _quiet_sdk():
            client = workspace_client(quick=True)
            host = client.config.host or host
            me = client.current_user.me()
    except ConfigError:
        raise NotSignedInError(
            problem("workspace", "databricks-sdk isn't installed", 'Run: pip install "oneturn[databricks]"')
        ) from None
    except (ValueError, OSError, RuntimeError) as error:  # the SDK's own errors are OSErrors
        raise NotSignedInError(problem("workspace", _refusal(error, host), _SIGN_IN_FIX)) from None
    groups = frozenset(group.display for group in me.groups or () if group.display)
    return WorkspaceIdentity(client, me.user_name or me.display_name or "", groups)


@contextmanager
def _quiet_sdk() -> Iterator[None]:
    """Suppress the SDK's warnings while it looks for credentials; the finding reports the error."""
    logger = logging.getLogger("databricks.sdk")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refusal(error: Exception, host: str) -> str:
    message = first_line(error)
    if "cannot configure default credentials" in message:
        return "there are no credentials here"
    return f"{host} can't be reached: {message}"


def first_line(error: Exception) -> str:
    """The first line of an error message, without the configuration that the SDK appends."""
    line = next(iter(str(error).strip().splitlines()), "").partition(" Config: ")[0].rstrip(".")
    return line or type(error).__name__


def refused(subject: str, error: Exception, missing: Callable[[], str]) -> Finding:
    """Convert a workspace error to a finding; ``missing`` returns the fix if the object doesn't exist."""
    from databricks.sdk.errors import InvalidParameterValue, NotFound, PermissionDenied

    if isinstance(error, NotFound | InvalidParameterValue):
        return problem(subject, f"it doesn't exist ({first_line(error)})", missing())
    if isinstance(error, PermissionDenied):
        return problem(subject, f"you can't see it ({first_line(error)})", "Ask its owner for permission.")
    return unknown(subject, f"the workspace returned an error ({first_line(error)})")


def has_privilege(identity: WorkspaceIdentity, kind: str, name: str, privilege: str) -> bool | None:
    """Whether a privilege is granted to the identity or one of its groups; ``None`` if grants can't be read.

    Args:
        identity: the client and its identity.
        kind: Unity Catalog's type of the object: ``"FUNCTION"``, ``"TABLE"``, ``"SCHEMA"``, …
        name: its full name.
        privilege: such as ``"EXECUTE"``.
    """
    from databricks.sdk.errors.base import DatabricksError

    sufficient, page = {privilege, "ALL_PRIVILEGES"}, None
    while True:
        try:
            effective = identity.client.grants.get_effective(kind, name, page_token=page)
        except DatabricksError:  # reading grants needs a privilege, too
            return None
        for assignment in effective.privilege_assignments or ():
            granted = {grant.privilege.value for grant in assignment.privileges or () if grant.privilege}
            if assignment.principal in identity.principals and granted & sufficient:
                return True
        if not (page := effective.next_page_token):
            return False


def check_resource(identity: WorkspaceIdentity, resource: Resource) -> Iterator[Finding]:
    """Check one resource from ``resources_of``."""
    kind, name = resource.type.value, resource.name  # type: ignore[attr-defined]  # every Databricks resource has one
    subject = f"{kind.replace('_', ' ')} {name}"
    check_kind = _KINDS.get(kind)
    if check_kind is None:
        yield unknown(subject, "not checked")
        return
    from databricks.sdk.errors.base import DatabricksError

    try:
        yield from check_kind(identity, subject, name)
    except (DatabricksError, OSError) as error:
        yield refused(subject, error, lambda: _missing_fix(identity, kind, name))


def _endpoint(identity: WorkspaceIdentity, subject: str, name: str) -> Iterator[Finding]:
    endpoint = identity.client.serving_endpoints.get(name)
    level = endpoint.permission_level.value if endpoint.permission_level else None
    if level == "CAN_VIEW":
        yield problem(subject, "you can see it, but not query it", "Ask its owner for the permission CAN QUERY.")
    elif endpoint.state and endpoint.state.ready and endpoint.state.ready.value == "NOT_READY":
        yield problem(subject, "it isn't ready", "See its page in the workspace; wait, or start it.")
    else:
        yield ok(subject, f"ready{f', {level}' if level else ''}")


def _index(identity: WorkspaceIdentity, subject: str, name: str) -> Iterator[Finding]:
    index = identity.client.vector_search_indexes.get_index(name)
    status = index.status
    if status is not None and status.ready is False:
        observation = f"it isn't ready: {status.message or 'no reason is given'}"
        yield problem(subject, observation, "Wait for its first sync; see its page in the workspace.")
        return
    if index.endpoint_name:
        yield from _search_endpoint(identity, index.endpoint_name)
    rows = f", {status.indexed_row_count:,} rows" if status and status.indexed_row_count is not None else ""
    yield from _check_grant(identity, subject, "TABLE", name, "SELECT", f"ready{rows}")


def _search_endpoint(identity: WorkspaceIdentity, name: str) -> Iterator[Finding]:
    subject = f"vector search endpoint {name}"
    status = identity.client.vector_search_endpoints.get_endpoint(name).endpoint_status
    state = status.state.value if status and status.state else None
    if state in (None, "ONLINE", "YELLOW_STATE"):
        yield ok(subject, state or "exists")
    else:
        yield problem(subject, f"it is {state}", "Start it, or wait until it is ONLINE.")


def _function(identity: WorkspaceIdentity, subject: str, name: str) -> Iterator[Finding]:
    identity.client.functions.get(name)
    yield from _check_grant(identity, subject, "FUNCTION", name, "EXECUTE", "exists")


def _table(identity: WorkspaceIdentity, subject: str, name: str) -> Iterator[Finding]:
    identity.client.tables.get(name)
    yield from _check_grant(identity, subject, "TABLE", name, "SELECT", "exists")


def _connection(identity: WorkspaceIdentity, subject: str, name: str) -> Iterator[Finding]:
    identity.client.connections.get(name)
    yield from _check_grant(identity, subject, "CONNECTION", name, "USE_CONNECTION", "exists")


def _warehouse(identity: WorkspaceIdentity, subject: str, name: str) -> Iterator[Finding]:
    warehouse = identity.client.warehouses.get(name)
    state = warehouse.state.value if warehouse.state else "exists"
    if state in ("DELETED", "DELETING"):
        yield problem(subject, f"it is {state}", "Name another warehouse.")
    elif state in ("STOPPED", "STOPPING") and not warehouse.enable_serverless_compute:
        yield warning(subject, f"it is {state}", "It starts with the first call, which then takes several minutes.")
    else:
        yield ok(subject, f"{warehouse.name or 'exists'}, {state}")


def _genie(identity: WorkspaceIdentity, subject: str, name: str) -> Iterator[Finding]:
    yield ok(subject, identity.client.genie.get_space(name).title or "exists")


def _check_grant(
    identity: WorkspaceIdentity, subject: str, kind: str, name: str, privilege: str, status: str
) -> Iterator[Finding]:
    """Report an existing object and whether the privilege is granted; an owner needs no grant."""
    granted = has_privilege(identity, kind, name, privilege)
    if granted:
        yield ok(subject, f"{status}, {privilege}")
    elif granted is None:
        yield ok(subject, f"{status}; its grants can't be read")
    else:
        fix = f"Unless you own it: GRANT {privilege} ON {kind} {name} TO `{identity.name}`"
        yield warning(subject, f"{status}, but {identity.name} has no visible grant of {privilege}", fix)


def _missing_fix(identity: WorkspaceIdentity, kind: str, name: str) -> str:
    """The fix for a missing object: for an endpoint, similar existing names."""
    if kind != "serving_endpoint":
        return "Check the name in Catalog Explorer."
    from databricks.sdk.errors.base import DatabricksError

    try:
        names = [endpoint.name for endpoint in identity.client.serving_endpoints.list() if endpoint.name]
    except DatabricksError as error:
        return f"Check the name; the endpoints can't be listed ({first_line(error)})."
    suggestions = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(names)[:3]
    if not suggestions:
        return "The workspace has no serving endpoint that you can see."
    return f"Existing endpoints: {', '.join(suggestions)}."


_KINDS: dict[str, Callable[[WorkspaceIdentity, str, str], Iterator[Finding]]] = {
    "serving_endpoint": _endpoint,
    "vector_search_index": _index,
    "function": _function,
    "table": _table,
    "uc_connection": _connection,
    "sql_warehouse": _warehouse,
    "genie_space": _genie,
}


_SECRET = re.compile(r"\{\{secrets/(?P<scope>[^/}]+)/(?P<key>[^/}]+)\}\}")


def experiment(identity: WorkspaceIdentity, name: str) -> Iterator[Finding]:
    """Check the experiment of runs and traces, or the folder in which it will be created."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    subject = f"experiment {name}"
    if not name.startswith("/"):
        yield problem(subject, "it isn't a path", "Name it as the workspace does: /Shared/<name>, /Users/<you>/<name>.")
        return
    folder = str(PurePosixPath(name).parent)
    try:
        identity.client.experiments.get_by_name(name)
        yield ok(subject, "exists")
    except NotFound:
        try:
            if folder != "/":
                identity.client.workspace.get_status(folder)
            yield ok(subject, "it will be created on first use")
        except DatabricksError as error:
            fix = f"Run: databricks workspace mkdirs {folder}"
            yield problem(subject, f"its folder can't be seen ({first_line(error)})", fix)
    except DatabricksError as error:
        yield refused(subject, error, lambda: "Check the name.")


def model(identity: WorkspaceIdentity, name: str) -> Iterator[Finding]:
    """Check the registered model, or the schema in which it will be created."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.errors.base import DatabricksError

    subject, schema = f"registered model {name}", name.rpartition(".")[0]
    try:
        registered = identity.client.registered_models.get(name)
        yield ok(subject, f"exists, owned by {registered.owner}" if registered.owner else "exists")
    except NotFound:
        yield from _schema(identity, subject, schema)
    except DatabricksError as error:
        yield refused(subject, error, lambda: "Check the name.")


def _schema(identity: WorkspaceIdentity, subject: str, schema: str) -> Iterator[Finding]:
    from databricks.sdk.errors.base import DatabricksError

    try:
        identity.client.schemas.get(schema)
    except DatabricksError as error:
        observation = f"it doesn't exist, and its schema {schema} can't be seen ({first_line(error)})"
        yield problem(subject, observation, f"CREATE SCHEMA {schema}; or name another in mlflow.model_name.")
        return
    if has_privilege(identity, "SCHEMA", schema, "CREATE_MODEL") is False:
        fix = f"Unless you own the schema: GRANT CREATE MODEL ON SCHEMA {schema} TO `{identity.name}`"
        yield warning(subject, f"it doesn't exist, and {identity.name} has no visible grant of CREATE MODEL", fix)
    else:
        yield ok(subject, "it will be created with the first version")


def secrets(identity: WorkspaceIdentity, config: AgentConfig) -> Iterator[Finding]:
    """Check the secrets that the deployed agent's environment refers to, by name; no value is read."""
    for variable, value in config.deploy.environment.items():
        if reference := _SECRET.fullmatch(value):
            yield _secret(identity, f"deploy.environment {variable}", reference["scope"], reference["key"])


def _secret(identity: WorkspaceIdentity, subject: str, scope: str, key: str) -> Finding:
    from databricks.sdk.errors.base import DatabricksError

    try:
        keys = {secret.key for secret in identity.client.secrets.list_secrets(scope)}
    except DatabricksError as error:
        return refused(subject, error, lambda: f"Run: databricks secrets create-scope {scope}")
    if key in keys:
        return ok(subject, f"the secret {scope}/{key} exists")
    fix = f"Run: databricks secrets put-secret {scope} {key}"
    return problem(subject, f"the scope {scope} has no secret {key}", fix)


def check_user_access(config: AgentConfig, scopes: list[str]) -> Iterator[Finding]:
    """Report access on behalf of users, which can't be checked without a user's request."""
    if scopes:
        yield unknown(
            "on behalf of users",
            f"their permissions can't be checked here; their tokens need {', '.join(scopes)}",
            "An admin must enable access on behalf of users; see docs/tools-from-elsewhere.md.",
        )
