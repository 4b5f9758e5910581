"""SQL statements on a warehouse, through the SDK: waited for, cancelled with the run, failures a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from oneturn.control import progress
from oneturn.elsewhere.workspace import first_line, pause, told_as_tool_error
from oneturn.errors import RunCancelled, ToolError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.sql import StatementParameterListItem, StatementResponse

Rows = list[list[str]]
_AT_ONCE = "5s"  # the shortest time that the API waits
_SLOWEST = 5.0


def execute(
    client: WorkspaceClient,
    warehouse: str,
    statement: str,
    parameters: Sequence[StatementParameterListItem],
    rows: int | None = None,
) -> tuple[StatementResponse, Rows]:
    """Execute a statement; give its result and all of its rows, at most ``rows``.

    Raises:
        ToolError: it failed; says what the warehouse says.
        RunCancelled: the run has to stop; the statement is cancelled.
    """
    from databricks.sdk.service.sql import ExecuteStatementRequestOnWaitTimeout as Then

    with told_as_tool_error():
        response = client.statement_execution.execute_statement(
            statement,
            warehouse,
            parameters=list(parameters),
            row_limit=rows,
            wait_timeout=_AT_ONCE,
            on_wait_timeout=Then.CONTINUE,
        )
        response = _finished(client, response)
        return response, rows_of(client, response)


def rows_of(client: WorkspaceClient, response: StatementResponse) -> Rows:
    """All rows of a result, which may come in several chunks."""
    found, chunk = list[list[str]](), response.result
    while chunk is not None:
        found += chunk.data_array or []
        if chunk.next_chunk_index is None:
            break
        chunk = client.statement_execution.get_statement_result_chunk_n(
            str(response.statement_id), chunk.next_chunk_index
        )
    return found


def _finished(client: WorkspaceClient, response: StatementResponse) -> StatementResponse:
    wait = 0.2
    while (state := _state(response)) in ("PENDING", "RUNNING"):
        try:
            progress("waiting for the warehouse" if state == "PENDING" else "the query runs")
            pause(wait)
        except RunCancelled:
            client.statement_execution.cancel_execution(str(response.statement_id))
            raise
        response, wait = client.statement_execution.get_statement(str(response.statement_id)), min(2 * wait, _SLOWEST)
    if state != "SUCCEEDED":
        error = response.status.error if response.status else None
        raise ToolError(first_line((error.message if error else None) or "") or f"the statement ended as {state}")
    return response


def _state(response: StatementResponse) -> str:
    state = response.status.state if response.status else None
    return state.value if state else "FAILED"
