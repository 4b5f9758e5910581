"""Server-sent events as they are on the wire (HTML standard, "Server-sent events")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_END = "[DONE]"


@dataclass(frozen=True)
class Stream:
    """What a body of server-sent events holds.

    Attributes:
        events: the JSON objects, in order.
        unreadable: the data of events that are something else.
        ended: whether ``[DONE]`` was the last.
    """

    events: tuple[Mapping[str, Any], ...]
    unreadable: tuple[str, ...] = ()
    ended: bool = False


def read_stream(body: bytes) -> Stream:
    """The events in ``body``. An event that was cut off, without the empty line after it, doesn't count."""
    # not str.splitlines, nor httpx's lines: both also split at characters that JSON texts may hold
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: list[Mapping[str, Any]] = []
    unreadable: list[str] = []
    ended = False
    data: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            told, data = b"\n".join(data), []
            value = read_json(told)
            ended = told.strip() == _END.encode()
            if isinstance(value, dict):
                events.append(value)
            elif not ended:
                unreadable.append(told.decode(errors="replace"))
    return Stream(tuple(events), tuple(unreadable), ended)


def read_json(body: bytes) -> Any:
    """``body`` as JSON; ``None`` if it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None
