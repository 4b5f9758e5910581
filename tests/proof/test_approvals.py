"""A run that stops for a person and goes on elsewhere: each of its streams is right, and no call is made twice."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import oneturn
from oneturn.testing import ScriptedLM, call, finish
from oneturn.tools.approvals import Approvals
from oneturn.tools.ledger import MemoryLedger
from tests.proof.judging import judged, outcome
from tests.proof.profile import proof
from tests.proof.scripted import KEY, as_json

QUESTION = {"role": "user", "content": "Do 1, 2 and 3."}
given_args = st.sampled_from([1, 2, 3, "one \ud800", float("nan"), None, {"a": [1.0, 2.5]}])
wanted = st.builds(call, st.sampled_from(["look", "pay", "pay"]), st.sampled_from(["", "so"]), what=given_args)
scripts = st.lists(wanted, max_size=4).map(tuple)
verdicts = st.lists(st.booleans(), min_size=5, max_size=5)
changes = st.sampled_from(["none", "arguments", "output", "name", "replay", "expired", "key"])


class Replica:
    """One of the processes that serve the agent; its tools keep what was done."""

    def __init__(self, lm: ScriptedLM, ledger: MemoryLedger, done: list[str], later: float = 0.0, key: str = KEY):
        def look(what: Any) -> str:
            """Look."""
            return f"saw {what}"

        def pay(what: Any) -> str:
            """Pay."""
            done.append(json.dumps(what))
            return f"paid {what}"

        program = oneturn.ReAct("question -> answer", tools=[look, oneturn.tool(pay, approval=True)], max_iters=6)
        program.set_lm(lm)
        approvals = Approvals(key, seconds=60, ledger=ledger, clock=lambda: time.time() + later)
        self.agent = oneturn.ResponsesAdapter(program, approvals=approvals)

    def asked(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The stream that answers these items."""
        earlier = [item["call_id"] for item in items if item.get("type") == "function_call"]
        return judged(self.agent.predict_stream({"input": items}), earlier)  # type: ignore[arg-type]


@proof
@given(scripts, verdicts, changes)
def test_a_run_goes_on_where_it_waited_and_only_as_it_was_approved(
    script: tuple[Any, ...], verdicts: list[bool], change: str
):
    lm = ScriptedLM(*map(as_json, script), *[finish(answer="Done.")] * 9)
    ledger, done, items, approved = MemoryLedger(), [], [QUESTION], 0
    for yes in verdicts:
        stream = Replica(lm, ledger, done).asked(items)
        assert outcome(stream) == "completed"
        output = stream[-1]["response"]["output"]
        items = [*items, *json.loads(json.dumps(output))]
        if output[-1]["type"] != "mcp_approval_request":
            assert output[-1]["content"][0]["text"] == "Done."
            break
        answer = {"type": "mcp_approval_response", "approval_request_id": output[-1]["id"], "approve": yes}
        items.append(answer)
        if change != "none":
            assert refused(change, items, lm, ledger, done)
            return
        approved += yes
    assert len(done) <= approved <= len(done) + 1


def refused(change: str, items: list[dict[str, Any]], lm: ScriptedLM, ledger: MemoryLedger, done: list[str]) -> bool:
    """Whether an approval that was tampered with is refused, and nothing done."""
    changed, options = (
        json.loads(json.dumps(items)),
        {"expired": {"later": 1e9}, "key": {"key": KEY[::-1]}},
    )
    outputs = [item for item in changed if item.get("type") == "function_call_output"]
    if change == "arguments":
        changed[-2]["arguments"] = '{"what": 4711}'
    elif change == "name":
        changed[-2]["name"] = "look"
    elif change == "output" and outputs:
        outputs[-1]["output"] += "!"
    elif change in ("replay", "output"):
        Replica(lm, ledger, done).asked(items)
    before = list(done)
    stream = Replica(lm, ledger, done, **options.get(change, {})).asked(changed)
    return outcome(stream) == "failed" and stream[-2]["code"] == "invalid_request" and done == before
