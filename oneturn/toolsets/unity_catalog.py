"""A function of Unity Catalog as a tool: described by its metadata, run on a SQL warehouse with typed parameters."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dspy

from oneturn.config.tools import UnityCatalogTool
from oneturn.core.background import run_in_thread
from oneturn.core.databricks_auth import (
    as_deploy_error,
    as_tool_error,
    client_factory,
    describing,
    first_line,
    pause,
    workspace_client,
)
from oneturn.core.run_context import progress, report
from oneturn.errors import ConfigError, DeployError, RunCancelled, ToolError
from oneturn.toolsets.json_schema import foreign_tool

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.catalog import FunctionInfo, FunctionParameterInfo
    from databricks.sdk.service.sql import StatementParameterListItem, StatementResponse


_PLAIN: dict[str, dict[str, Any]] = {
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
    """The JSON schema of a function's parameter, its comment as description."""
    try:
        spark = json.loads(parameter.type_json or "null")
    except ValueError:
        spark = None
    found = _of_spark(spark.get("type")) if isinstance(spark, dict) else {}
    schema = found or dict(_PLAIN.get(parameter.type_name.value, {"type": "string"}))
    return {"description": parameter.comment, **schema} if parameter.comment else schema


def marker(parameter: FunctionParameterInfo, name: str) -> tuple[str, str | None]:
    """How a statement takes a value, and the type that the API is told: nested ones travel as JSON."""
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
    """A value as the API takes it: text, or nothing for null."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _of_spark(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type as Spark writes it in JSON; empty for one that it doesn't tell."""
    if isinstance(kind, str):
        name = kind.partition("(")[0].upper()
        return dict(_PLAIN.get(name, {"type": "string"}))
    if not isinstance(kind, dict):
        return {}
    if kind.get("type") == "array":
        return {"type": "array", "items": _of_spark(kind.get("elementType"))}
    if kind.get("type") == "map":
        return {"type": "object", "additionalProperties": _of_spark(kind.get("valueType"))}
    fields = {field["name"]: _of_spark(field["type"]) for field in kind.get("fields", [])}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


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

    with as_tool_error():
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


def columns_of(response: StatementResponse) -> list[str]:
    """The columns' names."""
    schema = response.manifest.schema if response.manifest else None
    return [str(column.name) for column in (schema.columns or [] if schema else [])]


def render_table(response: StatementResponse, rows: Sequence[Sequence[str | None]], most: int) -> str:
    """Its first ``most`` rows as CSV; an empty value is one that is null."""
    if not rows:
        return "The result has no rows."
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns_of(response))
    writer.writerows(rows[:most])
    manifest = response.manifest
    total = (manifest.total_row_count if manifest else None) or len(rows)
    if total > most:
        text.write(f"(the first {most} of {total} rows)")
    elif manifest and manifest.truncated:
        text.write(f"(the first {len(rows[:most])} rows; there are more)")
    return text.getvalue().rstrip("\n")


def unity_catalog_tool(entry: UnityCatalogTool) -> dspy.Tool:
    """The tool of a function; its metadata are read now.

    Raises:
        ConfigError: the extra isn't installed, or the workspace doesn't give the function's metadata.
    """
    clients = client_factory(entry.credentials)
    try:
        with as_deploy_error(f"The function {entry.function} can't be a tool"):
            function = workspace_client(describing(entry.credentials)).functions.get(entry.function)
    except DeployError as error:
        raise ConfigError(str(error)) from error
    parameters = _parameters(function)
    is_table = function.data_type is not None and function.data_type.value == "TABLE_TYPE"

    def call(given: dict[str, Any]) -> str:
        def run(tell: Any) -> str:
            statement, values = _statement(entry.function, parameters, given, is_table)
            response, rows = execute(clients(), entry.warehouse, statement, values, entry.rows if is_table else None)
            if is_table:
                return render_table(response, rows, entry.rows)
            value = rows[0][0] if rows and rows[0] else None
            return "null" if value is None else value

        return run_in_thread(run, lambda told: report(str(told)))

    schema = {
        "type": "object",
        "properties": {parameter.name: _described(parameter) for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.parameter_default is None],
        "additionalProperties": False,
    }
    name = entry.name or entry.function.rpartition(".")[2]
    return foreign_tool(call, name, entry.description or function.comment or "", schema, entry)


def _parameters(function: FunctionInfo) -> list[FunctionParameterInfo]:
    found = (function.input_params.parameters if function.input_params else None) or []
    return sorted(found, key=lambda parameter: parameter.position)


def _described(parameter: FunctionParameterInfo) -> dict[str, Any]:
    schema = json_schema(parameter)
    if parameter.parameter_default is None:
        return schema
    told = f"{schema.get('description', '')} (null for the default, {parameter.parameter_default})".strip()
    return {**schema, "description": told}


def _statement(
    name: str, parameters: list[FunctionParameterInfo], given: Mapping[str, Any], is_table: bool
) -> tuple[str, list[StatementParameterListItem]]:
    """The call as SQL: names of the metadata in quotes, every value a parameter."""
    from databricks.sdk.service.sql import StatementParameterListItem

    arguments, values, left_out = list[str](), list[StatementParameterListItem](), False
    for number, parameter in enumerate(parameters):
        if parameter.name not in given:
            left_out = True
            continue
        taken, kind = marker(parameter, f"p{number}")
        arguments.append(f"{_quoted(parameter.name)} => {taken}" if left_out else taken)
        values.append(StatementParameterListItem(f"p{number}", kind, parameter_value(given[parameter.name])))
    called = f"{'.'.join(map(_quoted, name.split('.')))}({', '.join(arguments)})"
    return f"SELECT {'* FROM ' if is_table else ''}{called}", values  # noqa: S608 (names in quotes, values apart)


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
