"""What people have said of an answer, as MLflow's assessments of its trace hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlflow.entities import Assessment, AssessmentSourceType, Trace

_YES = ("yes", "true", "correct", "pass", "good", "up", "thumbs_up")
_NO = ("no", "false", "incorrect", "fail", "bad", "down", "thumbs_down")


@dataclass(frozen=True)
class Said:
    """What people said of an answer.

    Attributes:
        right: whether it is; ``None`` if nobody said yes or no.
        expected: what they gave instead, by the names of the expectations.
        by: who said something last.
        at: when, in UTC.
        note: why.
    """

    right: bool | None
    expected: Mapping[str, Any]
    by: str
    at: str
    note: str | None


def said_of(trace: Trace) -> Said | None:
    """What people said, the last word of each on each matter; ``None`` if nobody said anything.

    An answer is right if somebody says so and nobody the contrary.
    """
    own = [found for found in trace.info.assessments or [] if _of_a_person(found) and found.valid is not False]
    if not own:
        return None
    own.sort(key=_when)
    expected = {found.name: found.expectation.value for found in own if found.expectation}
    verdicts = {(found.name, found.source.source_id): _verdict(found) for found in own if found.feedback}
    clear = [verdict for verdict in verdicts.values() if verdict is not None]
    telling = [found for found in own if found.expectation or _verdict(found) is not None]
    last = (telling or own)[-1]
    at = datetime.fromtimestamp(_when(last) / 1000, timezone.utc).isoformat(timespec="seconds")
    right = all(clear) if clear else None
    return Said(right, expected, last.source.source_id or "unknown", at, last.rationale)


def _of_a_person(found: Assessment) -> bool:
    return bool(found.source.source_type == AssessmentSourceType.HUMAN)


def _when(found: Assessment) -> int:
    return found.last_update_time_ms or found.create_time_ms or 0


def _verdict(found: Assessment) -> bool | None:
    """Yes or no; ``None`` for a comment, and for a number, of which nobody knows whether 1 is the best or the worst."""
    value = found.feedback.value if found.feedback else None
    plain = value.strip().casefold() if isinstance(value, str) else value
    if plain is True or plain in _YES:
        return True
    return False if plain is False or plain in _NO else None
