"""What a check of the examples finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from oneturn.plain_json import plain


class Severity(str, Enum):
    """How bad it is: an error fails the check, a warning wants a look, a note is for information."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        severity: how bad it is.
        check: which check found it, such as ``"schema"`` or ``"near-duplicate"``.
        message: what is wrong.
        fix: what to do about it.
        file: the file's name; empty where no single file is meant.
        place: the row's place in the file, such as ``"line 3"``.
        field: the field's name; empty where no single field is meant.
        value: the field's value.
    """

    severity: Severity
    check: str
    message: str
    fix: str
    file: str = ""
    place: str = ""
    field: str = ""
    value: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return {**asdict(self), "severity": self.severity.value, "value": plain(self.value)}
