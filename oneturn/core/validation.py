"""The first problems of values that pydantic refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

_MOST = 1000


def problems_of(error: ValidationError) -> Sequence[Mapping[str, Any]]:
    """Return what is wrong, as ``ValidationError.errors()`` does; of more than a thousand problems one summary.

    A client can send millions of invalid values in one list, and each problem takes kilobytes.
    """
    if (count := error.error_count()) > _MOST:
        return [{"type": "too_many", "loc": (), "msg": f"{count:,} values are invalid", "input": None}]
    return error.errors(include_url=False, include_context=False)
