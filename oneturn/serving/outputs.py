"""Typed outputs of a reply: as tables for a terminal, and as one JSON object for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from oneturn.core.terminal import visible, visible_lines
from oneturn.responses.reply import Reply

_INLINE = 60  # a list of short values is one line of at most so many characters


def other_outputs(reply: Reply) -> dict[str, Any]:
    """Return the outputs that neither the answer's text nor its sources show."""
    ids = {source.get("id") for call in reply.tool_calls for source in call.sources}
    return {name: value for name, value in reply.custom_outputs.items() if not _is_subset(value, ids)}


def output_table(outputs: Mapping[str, Any]) -> RenderableType:
    """Show outputs below one another: a list of objects is a table, an object has its fields in rows."""
    table = Table.grid(padding=(0, 2))
    for name, value in outputs.items():
        table.add_row(Text(visible(str(name)), style="dim"), _view(value))
    return table


def reply_json(reply: Reply, *, is_local: bool) -> str:
    """Return a reply as one JSON object: its answer, outputs, sources, pending approvals, usage and trace id.

    Args:
        reply: the reply.
        is_local: whether its usage has the number of LM calls and the cost, which the protocol doesn't report.
    """
    named = {} if reply.answer_field is None else {reply.answer_field: reply.text}
    usage = reply.usage.to_responses()
    if is_local:
        usage |= {"lm_calls": reply.usage.lm_calls, "cost": reply.usage.cost}
    values = {
        "answer": reply.text if reply.answer_field is not None else None,
        "outputs": {**named, **reply.custom_outputs},
        "sources": [{"title": source.title, "url": source.url} for source in reply.sources],
        "approvals": [{"name": each.name, "arguments": each.arguments} for each in reply.approvals],
        "usage": usage,
        "trace_id": reply.trace_id,
    }
    return json.dumps(values)


def _view(value: Any) -> RenderableType:
    if isinstance(value, Mapping):
        return output_table(value) if value else Text("none", style="dim")
    if not isinstance(value, list):
        return Text(_scalar(value))
    if not value:
        return Text("none", style="dim")
    if all(isinstance(each, Mapping) for each in value):
        return _rows(value)
    if any(isinstance(each, Mapping | list) for each in value):
        return Group(*map(_view, value))
    texts = [_scalar(each) for each in value]
    line = ", ".join(texts)
    return Text(line if len(line) <= _INLINE and "\n" not in line else "\n".join(f"• {text}" for text in texts))


def _rows(values: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for value in values for name in value))
    table = Table(*(Column(Text(visible(str(name)))) for name in columns), box=None, pad_edge=False, header_style="dim")
    for value in values:
        table.add_row(*(_view(value[name]) if name in value else Text("") for name in columns))
    return table


def _scalar(value: Any) -> str:
    return visible_lines(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _is_subset(value: Any, ids: set[Any]) -> bool:
    """Whether an output only repeats sources, which are shown with their titles."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) and each in ids for each in value)
