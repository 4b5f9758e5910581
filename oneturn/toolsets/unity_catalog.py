"""A Unity Catalog function as a tool, described by its metadata and run on a SQL warehouse with typed parameters."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dspy

from oneturn.config.tools import UnityCatalogTool
from oneturn.core.background import run_in_thread
from oneturn.core.databricks_auth import (
    as_deploy_error,
    as_tool_error,
    first_line,
    schema_credentials,
    workspace_client,
)
from oneturn.core.run_context import pause, progress, report
from oneturn.errors import ConfigError, DeployError, RunCancelled, ToolError
from oneturn.toolsets.json_schema import schema_tool

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.catalog import FunctionInfo, FunctionParameterInfo
    from databricks.sdk.service.sql import StatementParameterListItem, StatementResponse


_SCHEMAS: dict[str, dict[str, Any]] = {
    **{key: {"type": "integer"} for key in ["BYTE", "SHORT", "INT", "INTEGER", "LONG"]},
    **{key: {"type": "number"} for key in ["FLOAT", "DOUBLE", "DECIMAL"]},
    "BOOLEAN": {"type": "boolean"},
    "DATE": {"type": "string", "format": "date"},
    **{key: {"type": "string", "format": "date-time"} for key in ["TIMESTAMP", "TIMESTAMP_NTZ"]},
    "ARRAY": {"type": "array"},
    **{key: {"type": "object"} for key in ["MAP", "STRUCT"]},
}
_NESTED = ("ARRAY", "MAP", "STRUCT")


def json_schema(parameter: FunctionParameterInfo) -> dict[str, Any]:
    """Return the JSON schema of a function's parameter, with its comment as the description."""
    try:
        spark = json.loads(parameter.type_json or "null")
    except ValueError:
        spark = None
    nested = _spark_schema(spark.get("type")) if isinstance(spark, dict) else {}
    schema = nested or dict(_SCHEMAS.get(parameter.type_name.value, {"type": "string"}))
    return {"description": parameter.comment, **schema} if parameter.comment else schema


def placeholder(parameter: FunctionParameterInfo, name: str) -> tuple[str, str | None]:
    """Return a parameter's placeholder in the statement and its type for the API. Nested types are sent as JSON."""
    kind = parameter.type_name.value
    if kind in _NESTED:
        text = parameter.type_text.replace("\\", "\\\\").replace("'", "\\'")
        return f"from_json(:{name}, '{text}')", "STRING"
    if kind == "VARIANT":
        return f"parse_json(:{name})", "STRING"
    if kind == "BINARY":
        return f"unbase64(:{name})", "STRING"
    return f":{name}", parameter.type_text.upper()


def parameter_value(value: Any) -> str | None:
    """Return a value as the API takes it: a string, or ``None`` for null."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _spark_schema(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a Spark type in its JSON form; an empty schema if there is no type."""
    if isinstance(kind, str):
        name = kind.partition("(")[0].upper()
        return dict(_SCHEMAS.get(name, {"type": "string"}))
    if not isinstance(kind, dict):
        return {}
    if kind.get("type") == "array":
        return {"type": "array", "items": _spark_schema(kind.get("elementType"))}
    if kind.get("type") == "map":
        return {"type": "object", "additionalProperties": _spark_schema(kind.get("valueType"))}
    fields = {field["name"]: _spark_schema(field["type"]) for field in kind.get("fields", [])}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


Rows = list[list[str]]
_WAIT_TIMEOUT = "5s"  # the minimum that the API accepts
_MAX_POLL_SECONDS = 5.0


def execute(
    client: WorkspaceClient,
    warehouse: str,
    statement: str,
    parameters: Sequence[StatementParameterListItem],
    rows: int | None = None,
) -> tuple[StatementResponse, Rows]:
    """Execute a statement and return its result and its rows, at most ``rows``.

    Raises:
        ToolError: the statement failed; the message is the warehouse's.
        RunCancelled: the run is cancelled; so is the statement.
    """
    from databricks.sdk.service.sql import ExecuteStatementRequestOnWaitTimeout as OnWaitTimeout

    with as_tool_error():
        response = client.statement_execution.execute_statement(
            statement,
            warehouse,
            parameters=list(parameters),
            row_limit=rows,
            wait_timeout=_WAIT_TIMEOUT,
            on_wait_timeout=OnWaitTimeout.CONTINUE,
        )
        response = wait_until_finished(client, response)
        return response, fetch_rows(client, response)


def fetch_rows(client: WorkspaceClient, response: StatementResponse) -> Rows:
    """Return all rows of a result, which may have several chunks."""
    rows, chunk = list[list[str]](), response.result
    while chunk is not None:
        rows += chunk.data_array or []
        if chunk.next_chunk_index is None:
            break
        chunk = client.statement_execution.get_statement_result_chunk_n(
            str(response.statement_id), chunk.next_chunk_index
        )
    return rows


def wait_until_finished(
    client: WorkspaceClient, response: StatementResponse, poll: Callable[[], StatementResponse | None] | None = None
) -> StatementResponse:
    """Poll a statement until it has ended.

    Args:
        client: the workspace.
        response: the statement's first response.
        poll: returns its next response; by default the statement is requested by its id.

    Raises:
        ToolError: the statement failed; the message is the warehouse's.
        RunCancelled: the run is cancelled; so is the statement.
    """
    wait = 0.2
    while (state := _state(response)) in ("PENDING", "RUNNING"):
        try:
            progress("waiting for the warehouse" if state == "PENDING" else "running the query")
            pause(wait)
        except RunCancelled:
            client.statement_execution.cancel_execution(str(response.statement_id))
            raise
        polled = poll() if poll else client.statement_execution.get_statement(str(response.statement_id))
        response = polled or response
        wait = min(2 * wait, _MAX_POLL_SECONDS)
    if state != "SUCCEEDED":
        error = response.status.error if response.status else None
        raise ToolError(
            first_line((error.message if error else None) or "") or f"the statement ended with the state {state}"
        )
    return response


def _state(response: StatementResponse) -> str:
    state = response.status.state if response.status else None
    return state.value if state else "FAILED"


def column_names(response: StatementResponse) -> list[str]:
    """Return the names of a result's columns."""
    schema = response.manifest.schema if response.manifest else None
    return [str(column.name) for column in (schema.columns or [] if schema else [])]


def render_table(response: StatementResponse, rows: Sequence[Sequence[str | None]], limit: int) -> str:
    """Return the first ``limit`` rows as CSV. Null values are empty."""
    if not rows:
        return "The result has no rows."
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column_names(response))
    writer.writerows(rows[:limit])
    manifest = response.manifest
    total = (manifest.total_row_count if manifest else None) or len(rows)
    if total > limit:
        text.write(f"(the first {limit} of {total} rows)")
    elif manifest and manifest.truncated:
        text.write(f"(the first {len(rows[:limit])} rows; there are more)")
    return text.getvalue().rstrip("\n")


def unity_catalog_tool(entry: UnityCatalogTool) -> dspy.Tool:
    """Return the tool of a function. The function's metadata are requested immediately.

    Raises:
        ConfigError: the extra isn't installed, or the function's metadata can't be read.
    """
    try:
        with as_deploy_error(f"The function {entry.function} can't be used as a tool"):
            function = workspace_client(schema_credentials(entry.credentials)).functions.get(entry.function)
    except DeployError as error:
        raise ConfigError(str(error)) from error
    parameters = _parameters(function)
    is_table = function.data_type is not None and function.data_type.value == "TABLE_TYPE"

    def call(arguments: dict[str, Any]) -> str:
        def run(emit: Any) -> str:
            statement, values = _statement(entry.function, parameters, arguments, is_table)
            client, limit = workspace_client(entry.credentials), entry.rows if is_table else None
            response, rows = execute(client, entry.warehouse, statement, values, limit)
            if is_table:
                return render_table(response, rows, entry.rows)
            value = rows[0][0] if rows and rows[0] else None
            return "null" if value is None else value

        return run_in_thread(run, lambda message: report(str(message)))

    schema = {
        "type": "object",
        "properties": {parameter.name: _argument_schema(parameter) for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.parameter_default is None],
        "additionalProperties": False,
    }
    name = entry.name or entry.function.rpartition(".")[2]
    return schema_tool(call, name, entry.description or function.comment or "", schema, entry)


def _parameters(function: FunctionInfo) -> list[FunctionParameterInfo]:
    parameters = (function.input_params.parameters if function.input_params else None) or []
    return sorted(parameters, key=lambda parameter: parameter.position)


def _argument_schema(parameter: FunctionParameterInfo) -> dict[str, Any]:
    schema = json_schema(parameter)
    if parameter.parameter_default is None:
        return schema
    description = f"{schema.get('description', '')} (null for the default, {parameter.parameter_default})".strip()
    return {**schema, "description": description}


def _statement(
    name: str, parameters: list[FunctionParameterInfo], arguments: Mapping[str, Any], is_table: bool
) -> tuple[str, list[StatementParameterListItem]]:
    """Return the call as SQL with its parameters: names are quoted, values are never part of the text."""
    from databricks.sdk.service.sql import StatementParameterListItem

    expressions, values, by_name = list[str](), list[StatementParameterListItem](), False
    for number, parameter in enumerate(parameters):
        if parameter.name not in arguments:
            by_name = True
            continue
        expression, kind = placeholder(parameter, f"p{number}")
        expressions.append(f"{_quote(parameter.name)} => {expression}" if by_name else expression)
        values.append(StatementParameterListItem(f"p{number}", kind, parameter_value(arguments[parameter.name])))
    call = f"{'.'.join(map(_quote, name.split('.')))}({', '.join(expressions)})"
    return f"SELECT {'* FROM ' if is_table else ''}{call}", values  # noqa: S608 (names quoted, values as parameters)


def _quote(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
