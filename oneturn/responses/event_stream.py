"""Decode server-sent events (HTML standard, 9.2.6) to the events of a Responses stream."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Event = Mapping[str, Any]

DONE: Event = {"type": "[DONE]"}
"""Stands for ``data: [DONE]``, with which most servers end a stream."""


def decode_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events in a body, as they arrive; :data:`DONE` is the last one.

    As in the standard, an event without data, such as ``event: ping`` or ``retry: 3000`` alone, is none, and neither is
    one that isn't followed by an empty line. Where ``event:`` names another event than one of the Responses protocol,
    data that isn't a JSON object is skipped.

    Raises:
        ValueError: the data of an event isn't a JSON object; the message has its beginning.
    """
    name = ""
    data: list[str] = []
    for line in _lines(chunks):
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif field == "event":
            name = value.removeprefix(" ")
        elif not line:
            event = _event(name, "\n".join(data).strip())
            name, data = "", []
            if event is not None:
                yield event
            if event is DONE:
                return


def _event(name: str, text: str) -> Event | None:
    if text.startswith("[DONE]"):
        return DONE
    if text in ("", "null"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    if name and name not in ("message", "error") and not name.startswith("response."):
        return None
    raise ValueError(f"{text:.80}")


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text without a byte order mark; they end with CR, LF or both, and with nothing else."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")("replace"), translate=True)
    parts: list[str] = []
    for chunk in chunks:
        *ends, rest = decoder.decode(chunk).split("\n")
        for end in ends:
            yield "".join([*parts, end])
            parts.clear()
        parts.append(rest)
    *ends, _ = decoder.decode(b"", final=True).split("\n")  # after a last CR, an LF might have come
    yield from ("".join([*parts, end]) for end in ends)
