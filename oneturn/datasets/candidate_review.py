"""The review of candidates by a person: one after the other, accepted, edited or rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy
import mlflow

from oneturn.agent import Agent
from oneturn.config.tracking import use_store, use_tracking
from oneturn.core.splits import read_schema
from oneturn.datasets.from_traces import UnusableTrace, agent_outputs
from oneturn.datasets.redaction import Redaction
from oneturn.datasets.review import (
    CANDIDATES,
    accept_edited,
    provenance_of,
    reject,
    waiting_candidates,
    without_provenance,
)
from oneturn.datasets.schema import example_schema
from oneturn.errors import DataError
from oneturn.programs import as_program


class CandidateReview:
    """The candidates of an agent that wait for a person.

    Args:
        agent: the agent whose examples folder is used, and whose traces are read.
        split: where accepted candidates go: ``"train"`` or ``"dev"``.

    Raises:
        ConfigError: the tracking server can't be reached.
    """

    def __init__(self, agent: Agent, split: str = "train"):
        self._agent = agent
        self._split = split
        self._program = as_program(agent.build())
        use_store(agent.config.mlflow, agent.root)
        if mlflow.get_experiment_by_name(agent.config.mlflow.experiment) is not None:
            use_tracking(agent.config.mlflow, agent.root)

    def describe(self) -> dict[str, Any]:
        """Return what a form needs: the schema of an example, and which of its fields are inputs and outputs."""
        signature = self._program.signature
        inputs = [name for name, field in signature.input_fields.items() if field.annotation is not dspy.History]
        return {
            "name": self._agent.name,
            "split": self._split,
            "schema": read_schema(self._agent.examples_folder) or example_schema(signature),
            "inputs": inputs,
            "outputs": list(signature.output_fields),
        }

    def candidates(self) -> list[dict[str, Any]]:
        """Return the candidates, those with a label first: ``id``, ``values``, ``provenance`` and ``labelled``.

        Raises:
            DataError: the candidates can't be read.
        """
        return [
            {
                "id": str(row["id"]),
                "values": {name: value for name, value in without_provenance(row).items() if name != "id"},
                "provenance": provenance_of(row),
                "labelled": file == CANDIDATES,
            }
            for file, row in waiting_candidates(self._agent.examples_folder)
        ]

    def answer(self, ident: str) -> Mapping[str, Any] | None:
        """Return the outputs that the agent gave for a candidate's question, redacted; ``None`` if its trace is gone.

        Raises:
            DataError: there is no such candidate.
        """
        waiting = waiting_candidates(self._agent.examples_folder)
        row = next((row for _, row in waiting if str(row["id"]) == ident), None)
        if row is None:
            raise DataError(f"There is no candidate {ident!r:.80}; it may have been reviewed already.")
        trace_id = provenance_of(row).get("trace_id")
        trace = mlflow.get_trace(trace_id, silent=True) if trace_id else None
        if trace is None:
            return None
        try:
            outputs = agent_outputs(trace, self._program)
        except UnusableTrace:  # another kind of trace: the reviewer sees none of it
            return None
        redacted: dict[str, Any] = Redaction(self._agent.config.data.redact).apply(outputs)
        return redacted

    def accept(self, ident: str, values: Mapping[str, Any]) -> None:
        """Move a candidate with these values into the split.

        Raises:
            DataError: the schema, the split's file or the agent's own loader rejects it. Nothing is changed then.
        """
        accept_edited(self._agent, ident, values, self._split)

    def reject(self, ident: str) -> None:
        """Drop a candidate; its trace isn't collected again.

        Raises:
            DataError: there is no such candidate.
        """
        reject(self._agent, ident)
