"""Tools at work: together, with progress and deadlines, and informed when the run ends."""

from __future__ import annotations

import json
import threading
from typing import Any

import pandas as pd
import pydantic
import pytest
from mlflow.entities import Document

import oneturn
from oneturn.core.run_context import RunContext, current_run
from oneturn.core.serialization import jsonable
from oneturn.core.steps import ToolCall, ToolProgress, ToolResult
from oneturn.errors import ProgramError, RunCancelled
from oneturn.testing import ScriptError
from oneturn.tools import registry
from oneturn.tools.execution import run_tools
from oneturn.tools.registry import run_tool, toolset

PATIENCE = 30  # seconds until a test gives up


def calls(*names: str, **args: Any) -> list[ToolCall]:
    return [ToolCall(f"call_{number}", name, args) for number, name in enumerate(names)]


def wait_until_cancelled() -> bool:
    """Do what a patient tool does: look now and then whether anybody still wants it."""
    gone = threading.Event()
    with current_run().waking(gone.set):
        while not oneturn.cancelled():
            gone.wait(0.005)
    return True


def test_a_tool_s_progress_is_told_before_its_result():
    def count(to: int) -> int:
        for done in range(to):
            oneturn.progress(f"{done} of {to}", done / to)
        return to

    events = list(run_tools(toolset([count]), calls("count", to=2)))
    assert events == [
        ToolProgress("call_0", "count", "0 of 2", 0.0),
        ToolProgress("call_0", "count", "1 of 2", 0.5),
        ToolResult("call_0", "count", "2"),
    ]


def test_a_tool_that_says_nothing_keeps_the_stream_alive():
    free = threading.Event()

    def slow() -> str:
        assert free.wait(PATIENCE)
        return "done"

    steps = run_tools(toolset([slow]), calls("slow"), keep_alive=0.001)
    assert next(steps) == ToolProgress("call_0", "slow")
    free.set()
    assert [step for step in steps if isinstance(step, ToolResult)] == [ToolResult("call_0", "slow", "done")]


def test_tools_called_together_run_together():
    together = threading.Barrier(3, timeout=PATIENCE)

    def meet() -> str:
        return f"number {together.wait()}"

    found = list(run_tools(toolset([meet]), calls("meet", "meet", "meet")))
    assert sorted(result.output for result in found) == ["number 0", "number 1", "number 2"]
    assert {result.call_id for result in found} == {"call_0", "call_1", "call_2"}


def test_a_tool_that_takes_too_long_has_failed_and_is_told_so():
    stopped = threading.Event()

    @oneturn.tool(timeout=0.01)
    def slow() -> str:
        """Take long."""
        wait_until_cancelled()
        stopped.set()
        return "too late"

    (result,) = run_tools(toolset([slow]), calls("slow"))
    assert (result.is_error, result.output) == (True, "Error: the tool exceeded its timeout of 0.01 s")
    assert stopped.wait(PATIENCE)


def test_one_tool_s_timeout_is_not_the_other_s():
    @oneturn.tool(timeout=0.01)
    def slow() -> str:
        """Take long."""
        return str(wait_until_cancelled())

    def patient() -> str:
        assert given_up.wait(PATIENCE)
        return "done"

    given_up = threading.Event()
    steps = run_tools(toolset([slow, patient]), calls("slow", "patient"))
    assert next(steps).is_error
    given_up.set()
    assert next(steps) == ToolResult("call_1", "patient", "done")


def test_a_tool_declared_with_more_is_described_to_the_lm_as_it_is():
    def find(query: str) -> str:
        """Find books."""
        return query

    plain, declared = toolset([find])["find"], toolset([oneturn.tool(find, timeout=3)])["find"]
    assert (declared.name, declared.desc, declared.args) == (plain.name, plain.desc, plain.args)
    assert declared(query="x") == "x"


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(timeout: float):
    with pytest.raises(ProgramError, match="it must be positive"):
        oneturn.tool(timeout=timeout)


def test_a_run_that_is_cancelled_asks_its_tools_to_stop_and_ends():
    stopped, started = threading.Event(), threading.Event()
    control = RunContext()

    def slow() -> str:
        started.set()
        wait_until_cancelled()
        stopped.set()
        return "in vain"

    def cancel() -> None:
        assert started.wait(PATIENCE)
        control.cancel("client_gone")

    threading.Thread(target=cancel).start()
    with control.active(), pytest.raises(RunCancelled, match="client_gone"):
        list(run_tools(toolset([slow]), calls("slow")))
    assert stopped.wait(PATIENCE)


def test_closing_asks_the_tools_to_stop():
    stopped = threading.Event()

    def slow() -> str:
        oneturn.progress("begun")
        wait_until_cancelled()
        stopped.set()
        return "in vain"

    steps = run_tools(toolset([slow]), calls("slow"))
    assert next(steps).message == "begun"
    steps.close()
    assert stopped.wait(PATIENCE)


def test_progress_ends_a_tool_whose_work_is_in_vain():
    with RunContext(0).active(), pytest.raises(RunCancelled, match="deadline_exceeded"):
        oneturn.progress("still here")


def test_outside_a_run_nothing_is_cancelled_and_nobody_listens():
    assert not oneturn.cancelled()
    oneturn.progress("alone")


def test_what_is_no_tool_s_own_failure_is_raised():
    def broken() -> str:
        raise ScriptError("asked too often")

    with pytest.raises(ScriptError):
        list(run_tools(toolset([broken]), calls("broken")))


# ---- control


def test_a_part_stops_with_the_whole_and_not_the_other_way():
    whole = RunContext()
    part = RunContext(parent=whole)
    part.cancel("enough")
    assert (whole.reason, part.reason) == (None, "enough")
    whole.cancel("all")
    assert (whole.reason, part.reason, RunContext(parent=whole).reason) == ("all", "enough", "all")


def test_the_nearest_deadline_counts():
    assert RunContext().remaining() is None
    assert RunContext(50, RunContext(100)).remaining() <= 50
    assert RunContext(100, RunContext(0)).remaining() == 0
    assert RunContext(100, RunContext(0)).reason == "deadline_exceeded"


def test_whoever_waits_is_woken_once_by_part_or_whole():
    whole = RunContext()
    part = RunContext(parent=whole)
    woken: list[str] = []
    with part.waking(lambda: woken.append("part")), whole.waking(lambda: woken.append("whole")):
        whole.cancel()
        whole.cancel()
    assert sorted(woken) == ["part", "whole"]


def cut(value: Any, max_chars: int = 50_000) -> str:
    """The output of a tool that returns ``value``."""
    tools = toolset([oneturn.tool(max_chars=max_chars)(lambda: value)])
    (name,) = tools
    return run_tool(tools, ToolCall("c", name, {})).output


def test_a_long_output_is_cut_and_says_so():
    output = cut("y" * 3_000_000)
    assert len(output) == 50_000
    assert output.endswith("y\n(cut; 3000000 characters)")
    assert cut("y" * 50_000) == "y" * 50_000


@pytest.mark.parametrize("value", [[{"n": n} for n in range(100)], {str(n): n for n in range(100)}])
def test_a_long_list_or_object_is_cut_between_two_entries(value: Any):
    structure, _, note = cut(value, max_chars=200).rpartition("\n")
    kept = json.loads(structure)
    assert kept == (dict(list(value.items())[: len(kept)]) if isinstance(value, dict) else value[: len(kept)])
    assert 5 < len(kept) < 50
    assert note == f"(cut; {len(json.dumps(value))} characters)"


class Page(pydantic.BaseModel):
    total: int
    rows: list[dict[str, int]]


NUMBERS = [{"n": n} for n in range(100)]


@pytest.mark.parametrize(
    ("value", "around"),
    [
        ({"rows": NUMBERS}, {}),
        ({"total": 100, "rows": NUMBERS, "next": 2}, {"total": 100}),
        ({"result": {"total": 100, "rows": NUMBERS}}, {"total": 100}),
        ([{"total": 100, "rows": NUMBERS}], {"total": 100}),
        (Page(total=100, rows=NUMBERS), {"total": 100}),
    ],
    ids=["only", "between others", "deeper", "in a list", "model"],
)
def test_a_long_list_in_an_object_is_cut_between_two_of_its_entries(value: Any, around: dict[str, Any]):
    structure, _, note = cut(value, max_chars=200).rpartition("\n")
    kept = json.loads(structure)
    while "rows" not in kept:
        kept = kept[0] if isinstance(kept, list) else kept["result"]
    rows = kept.pop("rows")
    assert kept == around
    assert rows == NUMBERS[: len(rows)]
    assert 5 < len(rows) < 50
    assert note.startswith("(cut; ")


def test_no_row_of_a_list_is_cut():
    rows: list[Any] = [{"id": n, "tags": ["a"] * 5} for n in range(20)]
    structure = cut(rows, max_chars=200).rpartition("\n")[0]
    kept = json.loads(structure)
    assert kept == rows[: len(kept)]
    assert kept


def test_a_long_list_isnt_converted_for_each_length_that_is_tried(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    def noted(value: Any) -> Any:
        sizes.append(len(value))
        return jsonable(value)

    monkeypatch.setattr(registry, "jsonable", noted)
    cut([{"n": n} for n in range(10_000)], max_chars=200)
    assert len(sizes) == 3, "the whole list, the entries that might fit, and those that do"
    assert sizes[1] < 200


def test_a_long_table_is_cut_between_two_rows():
    structure, _, note = cut(pd.DataFrame({"n": range(100)}), max_chars=200).rpartition("\n")
    assert json.loads(structure) == [{"n": n} for n in range(len(json.loads(structure)))]
    assert note == f"(cut; {len(json.dumps([{'n': n} for n in range(100)]))} characters)"


def test_documents_that_are_cut_cannot_be_cited():
    documents = [Document("x" * 50, id=str(n)) for n in range(10)]
    tools = toolset([oneturn.tool(max_chars=200)(lambda: documents)])
    (name,) = tools
    result = run_tool(tools, ToolCall("c", name, {}))
    assert [document.id for document in result.documents] == ["0", "1", "2"]
    assert "[2] " in result.output
    assert "[3] " not in result.output
