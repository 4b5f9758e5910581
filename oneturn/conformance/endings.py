"""Checks of terminal events: output, usage, errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from oneturn.conformance.events import Event, integer, is_draft, kind, mapping, same, stream_error
from oneturn.conformance.items import Item
from oneturn.conformance.rules import Findings, format_value
from oneturn.core.secrets import UNCERTAIN, find_secrets, leaves

_TRACEBACK = re.compile(r'Traceback \(most recent call last\)|File "[^"]+", line \d+|\bat 0x[0-9a-f]{6,}')
_PATH = re.compile(
    r"(?<![\w:/.])/(?:home|root|Users|tmp|usr|opt|var|etc|app|mnt|srv|databricks|Workspace|Volumes|local_disk0)/[\w./-]+"
    r"|\b[A-Za-z]:\\[\w\\.-]+|[\w/-]+/site-packages/|\b[\w/-]+\.py\b:\d+"
)
_LEAKS = {"a traceback": _TRACEBACK, "a server path": _PATH}


def check_ending(events: Sequence[Event], items: Sequence[Item], findings: Findings) -> None:
    """Check the output, usage, reason and error of the terminal events."""
    for position, event in enumerate(events):
        name, response = kind(event), mapping(event.get("response"))
        if name == "error":
            check_error(stream_error(event), findings, position)
        elif name == "response.failed":
            check_error(response.get("error"), findings, position)
        elif name == "response.incomplete":
            check_reason(response, findings, position)
        if name == "response.completed":
            check_usage(response, findings, position)
        if name in ("response.completed", "response.incomplete", "response.failed"):
            _check_output(name, response, items, findings, position)


def check_usage(response: Mapping[str, Any], findings: Findings, position: int | None = None) -> None:
    """Check that usage is present and adds up."""
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        findings.add("usage-missing", f"usage is {format_value(usage)}.", position)
        return
    read, written, total = (usage.get(f"{part}_tokens") for part in ("input", "output", "total"))
    counts = [count for count in (read, written, total) if isinstance(count, int) and integer(count)]
    if len(counts) < 3 or min(counts) < 0 or counts[0] + counts[1] != counts[2]:
        findings.add("usage-adds-up", f"input {read!r} + output {written!r} is not total {total!r}.", position)
    for direction in ("input", "output"):
        limit = usage.get(f"{direction}_tokens")
        for name, part in mapping(usage.get(f"{direction}_tokens_details")).items():
            if integer(part) and integer(limit) and not 0 <= part <= limit:
                findings.add("usage-adds-up", f"{name} is {part}, of {limit} {direction} tokens.", position)


def check_reason(response: Mapping[str, Any], findings: Findings, position: int | None = None) -> None:
    """Check that an incomplete response gives its reason."""
    if not mapping(response.get("incomplete_details")).get("reason"):
        findings.add("incomplete-reason", "incomplete_details.reason is missing.", position)


def check_error(error: Any, findings: Findings, position: int | None = None) -> None:
    """Check that an error has a code and a message, and leaks nothing. In Open Responses, the code may be null."""
    fields = mapping(error)
    for field in ("code", "message"):
        value = fields.get(field)
        if field == "code" and value is None and findings.contract == "openresponses":
            continue
        if not isinstance(value, str) or not value.strip():
            findings.add(
                "error-shape", f"{field} is {format_value(value)} in the error {format_value(error)}.", position
            )
    check_leaks(error, findings, position)


def check_leaks(error: Any, findings: Findings, position: int | None = None) -> None:
    """Check that the texts of an error hold no traceback, server path or secret."""
    text = "\n".join(value for _, _, value in leaves(error) if isinstance(value, str))
    for leak, pattern in _LEAKS.items():
        if hit := pattern.search(text):
            findings.add("error-leaks", f"An error contains {leak}: {format_value(hit[0])}", position)
    # Somebody else's endpoint isn't accused for a word after "password:".
    for secret in find_secrets(text, without=UNCERTAIN):
        findings.add("error-leaks", f"An error contains a likely secret ({secret.kind}).", position)


def _check_output(
    name: str, response: Mapping[str, Any], items: Sequence[Item], findings: Findings, position: int
) -> None:
    output = response.get("output")
    done = [item.done for item in sorted(items, key=_order) if item.done is not None]
    if name == "response.failed" and not output:  # OpenAI's failed response needs no output
        return
    ids = [mapping(item).get("id") for item in output] if isinstance(output, list) else []
    lasting = [dict(item) for item in done if item.get("id") in ids or not is_draft(item)]
    if not isinstance(output, list) or not same(output, lasting):
        count = len(output) if isinstance(output, list) else format_value(output)
        message = f"{name} has {count} items, {len(done)} were done; or their contents differ."
        findings.add("terminal-output", message, position)


def _order(item: Item) -> int:
    return item.start if item.output_index is None else item.output_index
