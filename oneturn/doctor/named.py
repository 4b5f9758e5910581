"""What a configuration names in a workspace: whether it is there, works, and may be used."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from mlflow.models.resources import Resource

from oneturn.doctor.asking import Asker, first_line, refused
from oneturn.doctor.finding import Finding, ok, problem, unknown, warning
from oneturn.doctor.grants import may


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
