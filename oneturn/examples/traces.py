"""Candidate examples from what an agent was asked in production: MLflow traces that people have judged or corrected."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
import pydantic
from mlflow.entities import Span, Trace
from mlflow.types.responses import ResponsesAgentRequest

from oneturn.agent import Agent
from oneturn.errors import EndpointError, RequestError
from oneturn.examples.candidates import ACCEPTED, CANDIDATES, PROVENANCE, TO_LABEL, read_candidates, write_candidates
from oneturn.examples.duplicates import asked
from oneturn.examples.files import Row, read_schema, split_files, split_rows
from oneturn.examples.near import NEAR, near_pairs, same_text
from oneturn.examples.redaction import Redaction
from oneturn.examples.verdicts import Said, said_of
from oneturn.programs import as_program
from oneturn.programs.wrapping import Program
from oneturn.replies import Reply, read_reply
from oneturn.responses.requests import program_inputs
from oneturn.tracking import use_tracking

_ANSWERS = ("expected_response", "response", "answer", "expected_answer")
"""What MLflow and its reviewers call the right answer."""


@dataclass(frozen=True)
class Gathered:
    """What became of the traces.

    Attributes:
        candidates: ids of the new candidates, which have a label.
        to_label: ids of the new ones without: somebody said that the answer was wrong, and not what is right.
        known: traces whose question is an example or a candidate already.
        near: ids of new ones, each with the example or candidate that asks nearly the same.
        redacted: how often each rule was applied.
        skipped: traces that can't be used, by the reason.
    """

    candidates: tuple[str, ...]
    to_label: tuple[str, ...]
    known: int
    near: Mapping[str, str]
    redacted: Mapping[str, int]
    skipped: Mapping[str, int]


def from_traces(agent: Agent, traces: Iterable[Trace] | None = None, *, max_traces: int | None = None) -> Gathered:
    """Add what people said of an agent's answers to the candidates, from which a person takes examples.

    A trace becomes a candidate with the right answer as its label if somebody has corrected it (an expectation named
    ``expected_response``, or as an output of the signature), or has said that its answer is right (feedback). Where
    somebody has said that it is wrong and nothing more, it waits in ``to_label.jsonl``. What LM judges say doesn't
    count. Doing it again adds nothing that is there already. Nothing enters a split by itself: see :func:`accept`.

    Args:
        agent: whose traces, and whose examples.
        traces: read them from there; ``None`` for those of the configured experiment.
        max_traces: look at so many of the newest, of those at most.
    """
    if traces is None:
        use_tracking(agent.config.mlflow)
        traces = mlflow.search_traces(max_results=max_traces, return_type="list", flush=True)
    reading = _Reading(agent)
    for trace in itertools.islice(traces, max_traces):
        reading.take(trace)
    return reading.finish()


class _Reading:
    def __init__(self, agent: Agent):
        self._folder = agent.examples_folder
        self._program: Program = as_program(agent.build())
        self._inputs = list(self._program.signature.input_fields)
        self._redaction = Redaction(agent.config.data.redact)
        self._allowed = _allowed(read_schema(self._folder))
        self._waiting = {name: read_candidates(self._folder, name) for name in (CANDIDATES, TO_LABEL)}
        self._asked = dict(self._known())
        seen = [*itertools.chain(*self._waiting.values()), *read_candidates(self._folder, ACCEPTED)]
        self._traces = {row.get(PROVENANCE, {}).get("trace_id") for row in seen}
        self._new: dict[str, list[dict[str, Any]]] = {CANDIDATES: [], TO_LABEL: []}
        self._known_ones = 0
        self._skipped: dict[str, int] = {}

    def take(self, trace: Trace) -> None:
        """Make a candidate of a trace, if it is one."""
        said = said_of(trace)
        if said is None:
            return
        if trace.info.trace_id in self._traces:
            self._known_ones += 1
            return
        try:
            inputs, reply = self._read(trace)
        except (EndpointError, RequestError, pydantic.ValidationError, _Unusable) as error:
            reason = str(error) if isinstance(error, _Unusable) else "the request or its answer can't be read"
            self._skipped[reason] = self._skipped.get(reason, 0) + 1
            return
        self._add(trace, said, self._redaction.apply(inputs), self._redaction.apply(self._label(said, reply)))

    def finish(self) -> Gathered:
        """Write what is new."""
        near = self._near()
        for name, new in self._new.items():
            if new:
                write_candidates(self._folder, [*self._waiting[name], *new], name)
        return Gathered(
            candidates=tuple(row["id"] for row in self._new[CANDIDATES]),
            to_label=tuple(row["id"] for row in self._new[TO_LABEL]),
            known=self._known_ones,
            near=near,
            redacted=dict(self._redaction.counts),
            skipped=self._skipped,
        )

    def _known(self) -> Iterator[tuple[str, str]]:
        schema = read_schema(self._folder)
        rows = [row for split, path in split_files(self._folder).items() for row in split_rows(split, path, schema)]
        for row in rows:
            if isinstance(row, Row):
                yield same_text(asked(row.values, self._inputs)), row.name
        for waiting in self._waiting.values():
            for candidate in waiting:
                yield same_text(asked(candidate, self._inputs)), str(candidate.get("id"))

    def _read(self, trace: Trace) -> tuple[dict[str, Any], Reply]:
        span, request = _answering(trace)
        signature, answer = self._program.signature, self._program.answer_field
        inputs = program_inputs(signature, ResponsesAgentRequest.model_validate(request), answer)
        plain = {name: value for name, value in inputs.items() if isinstance(value, str | int | float | bool | list)}
        outputs = span.outputs if isinstance(span.outputs, Mapping) else {}
        return plain, read_reply([{"type": "response.completed", "response": outputs}])

    def _label(self, said: Said, reply: Reply) -> dict[str, Any]:
        outputs, answer = self._program.signature.output_fields, self._program.answer_field
        if said.right is None and not said.expected:
            return {}
        given: dict[str, Any] = dict(reply.custom_outputs) if said.right else {}
        if said.right and answer:
            given[answer] = reply.text
        expected = {
            (answer or name) if name in _ANSWERS and name not in outputs else name: value
            for name, value in said.expected.items()
        }
        return {name: value for name, value in {**given, **expected}.items() if name in outputs}

    def _add(self, trace: Trace, said: Said, inputs: dict[str, Any], label: dict[str, Any]) -> None:
        text = same_text(asked(inputs, self._inputs))
        if text in self._asked:
            self._known_ones += 1
            return
        ident = f"trace-{trace.info.trace_id.removeprefix('tr-')[:12]}"
        self._asked[text] = ident
        values = {name: value for name, value in {**inputs, **label}.items() if self._allowed(name)}
        provenance = {"trace_id": trace.info.trace_id, "by": said.by, "at": said.at, "said": said.what}
        if not label and said.note:
            provenance["note"] = self._redaction.apply(said.note)
        self._new[CANDIDATES if label else TO_LABEL].append({"id": ident, **values, PROVENANCE: provenance})

    def _near(self) -> dict[str, str]:
        """What asks nearly the same; each new one is told of it in its own row, too."""
        new = {row["id"]: row for rows in self._new.values() for row in rows}
        texts, names = list(self._asked), list(self._asked.values())
        found: dict[str, str] = {}
        for one, other, _ in near_pairs(texts, NEAR):
            late, early = (names[other], names[one]) if names[other] in new else (names[one], names[other])
            if late in new and late not in found:
                found[late] = new[late][PROVENANCE]["near"] = early
        return found


class _Unusable(Exception):
    """A trace that no example can be made of, and why."""


def _answering(trace: Trace) -> tuple[Span, Mapping[str, Any]]:
    """The span of the agent and its request: the outermost, below that of the server where one has traced it, too."""
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        request = span.inputs.get("request") if isinstance(span.inputs, Mapping) else None
        if isinstance(request, Mapping) and "input" in request:
            return span, request
    raise _Unusable("it isn't the trace of a Responses request")


def _allowed(schema: Mapping[str, Any] | None) -> Any:
    if schema is None or schema.get("additionalProperties") is not False:
        return lambda name: True
    return lambda name: name in schema.get("properties", {})
