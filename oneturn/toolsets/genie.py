"""A Genie space as a tool. It takes a question and returns the answer, its SQL and the result's rows as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from oneturn.config.tools import GenieTool
from oneturn.core.background import run_in_thread
from oneturn.core.databricks_auth import as_tool_error, first_line, workspace_client
from oneturn.core.run_context import pause, report
from oneturn.errors import ToolError
from oneturn.toolsets.json_schema import QUESTION_SCHEMA, schema_tool
from oneturn.toolsets.unity_catalog import fetch_rows, render_table, wait_until_finished

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.dashboards import GenieAttachment, GenieMessage
    from databricks.sdk.service.sql import StatementResponse

_DESCRIPTION = "Ask a question about the tables of a Genie space, in plain words; it answers with SQL and its result."
_FINAL = ("COMPLETED", "FAILED", "CANCELLED", "QUERY_RESULT_EXPIRED")
_MAX_POLL_SECONDS = 5.0


def genie_tool(entry: GenieTool) -> dspy.Tool:
    """Return the tool of a space. No request is sent before the tool is called."""

    def call(arguments: dict[str, Any]) -> str:
        def run(emit: Any) -> str:
            with as_tool_error():
                client = workspace_client(entry.credentials)
                return _render(client, _wait_for_answer(client, entry.space, arguments["question"], emit), entry)

        return run_in_thread(run, lambda message: report(str(message)))

    return schema_tool(call, entry.name, entry.description or _DESCRIPTION, QUESTION_SCHEMA, entry)


def _wait_for_answer(client: WorkspaceClient, space: str, question: str, emit: Any) -> GenieMessage:
    """Return Genie's message when it is complete. The SDK's own wait can't be cancelled."""
    started = client.genie.start_conversation(space, question)
    wait, status = 0.2, ""
    while True:
        message = client.genie.get_message(space, started.conversation_id, started.message_id)
        now = message.status.value if message.status else "SUBMITTED"
        if now in _FINAL:
            break
        if now != status:
            emit(now.lower().replace("_", " "))
        status = now
        pause(wait)
        wait = min(2 * wait, _MAX_POLL_SECONDS)
    if now != "COMPLETED":
        reason = message.error.error if message.error else None
        raise ToolError(f"Genie couldn't answer: {first_line(reason or '') or now.lower().replace('_', ' ')}")
    return message


def _render(client: WorkspaceClient, message: GenieMessage, entry: GenieTool) -> str:
    attachments = message.attachments or []
    parts = [text for attachment in attachments for text in _attachment_texts(client, message, attachment, entry)]
    return "\n\n".join(parts) or "Genie gave no answer."


def _attachment_texts(
    client: WorkspaceClient, message: GenieMessage, attachment: GenieAttachment, entry: GenieTool
) -> list[str]:
    texts = []
    if attachment.text is not None and attachment.text.content:
        texts.append(attachment.text.content)
    if attachment.query is not None:
        if attachment.query.description:
            texts.append(attachment.query.description)
        texts.append(f"SQL: {attachment.query.query}")

        def fetch() -> StatementResponse | None:
            ids = (message.conversation_id, message.message_id, str(attachment.attachment_id))
            return client.genie.get_message_attachment_query_result(entry.space, *ids).statement_response

        if (response := fetch()) is not None:
            response = wait_until_finished(client, response, fetch)
            texts.append(render_table(response, fetch_rows(client, response), entry.rows))
    return texts
