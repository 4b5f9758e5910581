"""An LM's endpoint in the stand-in of a workspace, which always says the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.databricks.workspace import Answer, Call, Workspace

_USAGE = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def finishing_lm(workspace: Workspace, name: str, outputs: Mapping[str, Any]) -> None:
    """Let the endpoint ``name`` finish each run of ``oneturn.ReAct`` with these outputs, by any of its addresses."""
    step = json.dumps({"tool_call": {"name": "finish", "args": dict(outputs)}})
    said = {"role": "assistant", "content": step}

    def answer(call: Call) -> Any:
        common = {"id": "c", "created": 0, "model": name, "usage": _USAGE}
        if call.body.get("stream"):
            choice = {"index": 0, "delta": said, "finish_reason": "stop"}
            piece = {**common, "object": "chat.completion.chunk", "choices": [choice]}
            lines = [f"data: {json.dumps(piece)}\n\n".encode(), b"data: [DONE]\n\n"]
            return Answer(body=iter(lines), headers={"Content-Type": "text/event-stream"})
        return {
            **common,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
        }

    workspace.on("POST", f"/serving-endpoints/(?:{name}/invocations|chat/completions)", answer)
