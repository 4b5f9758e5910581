"""MLflow's deployments client."""

from __future__ import annotations

import json
import os
from typing import Any

from cells import CLOCK, Answer, Left, run_cells, turn
from response_items import outputs

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "DATABRICKS_TOKEN": "none"}

from mlflow.deployments import get_deploy_client


class Conversation:
    """The history is the list of items: questions, and the outputs as they came."""

    def __init__(self, cell: dict[str, Any]):
        self._cell = cell
        self._input: list[Any] = []
        os.environ["DATABRICKS_HOST"] = cell["url"]
        for limit in ("MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT", "MLFLOW_DEPLOYMENT_PREDICT_TOTAL_TIMEOUT"):
            os.environ[limit] = str(int(cell["timeout"]))
        self._client = get_deploy_client("databricks")

    def ask(self, question: str) -> dict[str, Any]:
        """Ask through ``predict`` or ``predict_stream``."""
        self._input = [*self._input, {"role": "user", "content": question}]
        shown = self._respond()
        if self._cell["client_tool"]:
            results, ran = outputs(self._output)
            self._input += results
            return self._respond() | {"ran": ran}
        return shown

    def decide(self, approve: bool) -> dict[str, Any]:
        """Answer the approval request."""
        (request_id,) = [item["id"] for item in self._output if item["type"] == "mcp_approval_request"]
        answer = {"type": "mcp_approval_response", "approval_request_id": request_id, "approve": approve}
        self._input = [*self._input, answer]
        return self._respond()

    def _respond(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input": self._input}
        if self._cell["custom_inputs"]:
            inputs["custom_inputs"] = self._cell["custom_inputs"]
        if self._cell["structured"]:
            schema = Answer.model_json_schema() | {"additionalProperties": False}
            inputs["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
        if self._cell["client_tool"]:
            inputs["tools"] = [{"type": "function", **CLOCK}]
        deltas, text = 0, ""
        if self._cell["stream"]:
            self._output, response = [], {}
            for event in self._client.predict_stream(endpoint="desk", inputs=inputs):
                if event["type"] == "error":
                    raise RuntimeError(f"{event['code']}: {event['message']}")
                if event["type"] == "response.output_text.delta":
                    deltas, text = deltas + 1, text + event["delta"]
                    if self._cell["leave"]:
                        raise Left
                if event["type"] == "response.output_item.done":
                    self._output.append(event["item"])
        else:
            response = self._client.predict(endpoint="desk", inputs=inputs)
            self._output = response["output"]
        self._input = [*self._input, *self._output]
        return self._read(deltas)

    def _read(self, deltas: int) -> dict[str, Any]:
        items = self._output
        results = {item["call_id"]: item["output"] for item in items if item["type"] == "function_call_output"}
        calls = [item for item in items if item["type"] == "function_call"]
        requests = [item for item in items if item["type"] == "mcp_approval_request"]
        contents = [part for item in items if item["type"] == "message" for part in item["content"]]
        text = "".join(part["text"] for part in contents)
        return turn(
            text,
            deltas=deltas,
            tools=[[item["name"], results[item["call_id"]]] for item in calls if item["call_id"] in results],
            to_run=[item["name"] for item in calls if item["call_id"] not in results],
            citations=[note["url"] for part in contents for note in part.get("annotations") or []],
            approvals=[[request["name"], json.loads(request["arguments"])] for request in requests],
            parsed=json.loads(text) if self._cell["structured"] else None,
        )


if __name__ == "__main__":
    run_cells(Conversation)
