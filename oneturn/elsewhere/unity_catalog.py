"""A function of Unity Catalog as a tool: described by its metadata, run on a SQL warehouse with typed parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dspy

from oneturn.config.tools import UnityCatalogTool
from oneturn.control import report
from oneturn.databricks.credentials import describing, workspace_client
from oneturn.databricks.failures import told_in_a_line
from oneturn.elsewhere.foreign import foreign_tool
from oneturn.elsewhere.sql_types import json_schema, marker, parameter_value
from oneturn.elsewhere.statements import execute
from oneturn.elsewhere.tables import told_table
from oneturn.elsewhere.workspace import client_maker
from oneturn.errors import ConfigError, DeployError
from oneturn.watching import listen

if TYPE_CHECKING:
    from databricks.sdk.service.catalog import FunctionInfo, FunctionParameterInfo
    from databricks.sdk.service.sql import StatementParameterListItem


def unity_catalog_tool(entry: UnityCatalogTool) -> dspy.Tool:
    """The tool of a function; its metadata are read now.

    Raises:
        ConfigError: the extra isn't installed, or the workspace doesn't give the function's metadata.
    """
    clients = client_maker(entry.credentials)
    try:
        with told_in_a_line(f"The function {entry.function} can't be a tool"):
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
                return told_table(response, rows, entry.rows)
            value = rows[0][0] if rows and rows[0] else None
            return "null" if value is None else value

        return listen(run, lambda told: report(str(told)))

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
