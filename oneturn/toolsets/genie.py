"""A Genie space as a tool: a question in plain words; the answer, its SQL and the result's rows as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from oneturn.config.tools import GenieTool
from oneturn.core.background import run_in_thread
from oneturn.core.databricks_auth import as_tool_error, client_factory, first_line, pause
from oneturn.core.run_context import report
from oneturn.errors import ToolError
from oneturn.toolsets.json_schema import foreign_tool
from oneturn.toolsets.unity_catalog import render_table, rows_of

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.dashboards import GenieAttachment, GenieMessage

_DESCRIPTION = "Ask a question about the tables of a Genie space, in plain words; it answers with SQL and its result."
_QUESTION = {"type": "string", "description": "The question, to be understood on its own."}
_SCHEMA = {"type": "object", "properties": {"question": _QUESTION}, "required": ["question"]}
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "QUERY_RESULT_EXPIRED")
_SLOWEST = 5.0


def genie_tool(entry: GenieTool) -> dspy.Tool:
    """The tool of a space; nothing is asked before the tool is called."""
    clients = client_factory(entry.credentials)

    def call(given: dict[str, Any]) -> str:
        def run(tell: Any) -> str:
            with as_tool_error():
                client = clients()
                return _told(client, _answered(client, entry.space, given["question"], tell), entry)

        return run_in_thread(run, lambda told: report(str(told)))

    return foreign_tool(call, entry.name, entry.description or _DESCRIPTION, _SCHEMA, entry)


def _answered(client: WorkspaceClient, space: str, question: str, tell: Any) -> GenieMessage:
    """The message when Genie is through with it (the SDK's own waiting can't be stopped)."""
    started = client.genie.start_conversation(space, question)
    wait, status = 0.2, ""
    while True:
        message = client.genie.get_message(space, started.conversation_id, started.message_id)
        now = message.status.value if message.status else "SUBMITTED"
        if now in _ENDED:
            break
        if now != status:
            tell(now.lower().replace("_", " "))
        status = now
        pause(wait)
        wait = min(2 * wait, _SLOWEST)
    if now != "COMPLETED":
        said = message.error.error if message.error else None
        raise ToolError(f"Genie couldn't answer: {first_line(said or '') or now.lower().replace('_', ' ')}")
    return message


def _told(client: WorkspaceClient, message: GenieMessage, entry: GenieTool) -> str:
    parts = [text for found in message.attachments or [] for text in _attachment(client, message, found, entry)]
    return "\n\n".join(parts) or "Genie gave no answer."


def _attachment(client: WorkspaceClient, message: GenieMessage, found: GenieAttachment, entry: GenieTool) -> list[str]:
    told = []
    if found.text is not None and found.text.content:
        told.append(found.text.content)
    if found.query is not None:
        if found.query.description:
            told.append(found.query.description)
        told.append(f"SQL: {found.query.query}")
        got = client.genie.get_message_attachment_query_result(
            entry.space, message.conversation_id, message.message_id, str(found.attachment_id)
        )
        if (response := got.statement_response) is not None:
            told.append(render_table(response, rows_of(client, response), entry.rows))
    return told
