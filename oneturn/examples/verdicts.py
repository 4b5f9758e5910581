"""What people have said of an answer, as MLflow's assessments of its trace hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlflow.entities import Assessment, AssessmentSourceType, Trace

_YES = {True, "yes", "true", "correct", "pass", "good", "up", "thumbs_up"}
_NO = {False, "no", "false", "incorrect", "fail", "bad", "down", "thumbs_down"}


@dataclass(frozen=True)
class Said:
    """What people said of an answer.

    Attributes:
        right: whether it is; ``None`` if they gave the right one instead, or said that it is wrong.
        expected: the right one, by the names of the expectations.
        by: who said it last.
        at: when, in UTC.
        what: ``"corrected"``, ``"right"`` or ``"wrong"``.
        note: why.
    """

    right: bool | None
    expected: Mapping[str, Any]
    by: str
    at: str
    what: str
    note: str | None


def said_of(trace: Trace) -> Said | None:
    """What people said, the last word of each kind; ``None`` if nobody said anything."""
    own = [found for found in trace.info.assessments or [] if _of_a_person(found) and found.valid is not False]
    own.sort(key=lambda found: found.create_time_ms or 0)
    expected = {k: v for found in own if found.expectation for k, v in _expected(found).items()}
    verdicts = [(found, verdict) for found in own if found.feedback and (verdict := _verdict(found)) is not None]
    if not expected and not verdicts:
        return None
    last = verdicts[-1][0] if verdicts and not expected else next(found for found in reversed(own) if found.expectation)
    at = datetime.fromtimestamp((last.create_time_ms or 0) / 1000, timezone.utc).isoformat(timespec="seconds")
    what = "corrected" if expected else "right" if verdicts[-1][1] else "wrong"
    right = verdicts[-1][1] or None if verdicts and not expected else None
    return Said(right, expected, last.source.source_id or "unknown", at, what, last.rationale)


def _of_a_person(found: Assessment) -> bool:
    return bool(found.source.source_type == AssessmentSourceType.HUMAN)


def _expected(found: Assessment) -> dict[str, Any]:
    value = found.expectation.value if found.expectation else None
    return dict(value) if isinstance(value, Mapping) else {found.name: value}


def _verdict(found: Assessment) -> bool | None:
    value = found.feedback.value if found.feedback else None
    plain = value.strip().casefold() if isinstance(value, str) else value
    if isinstance(plain, list | dict) or plain is None:
        return None
    return True if plain in _YES else False if plain in _NO else None
