"""What one run costs, whatever threads its LM calls are made in."""

from __future__ import annotations

from typing import Any

from dspy.utils.usage_tracker import UsageTracker


class RunUsage(UsageTracker):
    """A ``dspy`` usage tracker that stays one: ``dspy.Parallel`` copies the tracker for each of its threads."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RunUsage:
        return self

    def add_to(self, outer: UsageTracker) -> None:
        """Add all that was used to the tracker around the run, as ``dspy.track_usage`` does."""
        for model, entries in self.usage_data.items():
            outer.usage_data[model].extend(entries)
