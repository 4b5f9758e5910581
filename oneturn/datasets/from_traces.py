"""Candidate examples from what an agent was asked in production: MLflow traces that people have judged or corrected."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dspy
import mlflow
import pydantic
from mlflow.entities import Assessment, AssessmentSourceType, Span, Trace
from mlflow.types.responses import ResponsesAgentRequest
from tqdm.auto import tqdm

from oneturn.agent import Agent
from oneturn.config import MlflowConfig
from oneturn.config.tracking import shown, use_store, use_tracking
from oneturn.core.serialization import plain
from oneturn.datasets.duplicates import NEAR, input_text, near_pairs, same_text
from oneturn.datasets.redaction import Redaction
from oneturn.datasets.review import (
    ACCEPTED,
    CANDIDATES,
    PROVENANCE,
    TO_LABEL,
    Candidate,
    read_candidates,
    write_candidates,
)
from oneturn.datasets.splits import Row, read_schema, split_files, split_rows
from oneturn.errors import DataError, RequestError
from oneturn.programs import as_program
from oneturn.programs.program import Program
from oneturn.responses.reply import read_reply
from oneturn.responses.request import program_inputs
from oneturn.responses.tracing import COMPLETED, OUTCOME

_YES = ("yes", "true", "correct", "pass", "good", "up", "thumbs_up")
_NO = ("no", "false", "incorrect", "fail", "bad", "down", "thumbs_down")


@dataclass(frozen=True)
class Feedback:
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


def human_feedback(trace: Trace) -> Feedback | None:
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
    return Feedback(right, expected, last.source.source_id or "unknown", at, last.rationale)


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


_ANSWERS = ("expected_response", "response", "answer", "expected_answer")
"""What MLflow and its reviewers call the right answer."""


class Unusable(DataError):
    """A trace that no example can be made of, and why."""


@dataclass(frozen=True)
class LabelledInputs:
    """What a trace tells, as JSON has it.

    Attributes:
        inputs: what was asked, by the signature's inputs.
        label: what is right, by its outputs; empty if nobody has told it.
        rest: what people have given that is no output of the signature.
        corrected: whether people have given something of the label, and not only found it right.
    """

    inputs: Mapping[str, Any]
    label: Mapping[str, Any]
    rest: Mapping[str, Any]
    corrected: bool


def read_trace(trace: Trace, said: Feedback, program: Program) -> LabelledInputs:
    """Read a trace of the program.

    Raises:
        Unusable: it is none, people said nothing of use, or it was asked with what no row can hold.
        RequestError: the program doesn't take the request.
        pydantic.ValidationError: it isn't one that the Responses protocol has.
    """
    if said.right is None and not said.expected:
        raise Unusable("what people said of it is neither yes nor no, and no answer")
    span, request = _answering(trace)
    signature, answer = program.signature, program.answer_field
    inputs = program_inputs(signature, ResponsesAgentRequest.model_validate(request), answer)
    if any(isinstance(value, dspy.Type) for given in inputs.values() for value in _each(given)):
        raise Unusable("an image or a file was sent with it")
    corrected, rest = _expected(said, program)
    label = {**(_given(span, program) if said.right else {}), **corrected}
    held = {name: plain(value) for name, value in inputs.items() if value is not None}
    return LabelledInputs(held, label, rest, bool(corrected) or said.right is None)


def _answering(trace: Trace) -> tuple[Span, Mapping[str, Any]]:
    """The span of the agent and its request: the outermost, below that of the server where one has traced it, too."""
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        request = span.inputs.get("request") if isinstance(span.inputs, Mapping) else None
        if isinstance(request, Mapping) and "input" in request:
            return span, request
    raise Unusable("it isn't the trace of a Responses request")


def _given(span: Span, program: Program) -> dict[str, Any]:
    """What the agent gave, by output; nothing unless it came to its end."""
    outputs = span.outputs if isinstance(span.outputs, Mapping) else {}
    reply = read_reply([{"type": "response.completed", "response": outputs}])
    if span.get_attribute(OUTCOME) not in (None, COMPLETED) or reply.approvals:
        return {}
    answer = {program.answer_field: reply.text} if program.answer_field else {}
    given = {**reply.custom_outputs, **answer}
    return {name: value for name, value in given.items() if name in program.signature.output_fields}


def _expected(said: Feedback, program: Program) -> tuple[dict[str, Any], dict[str, Any]]:
    """What people gave, by output; and what of it is no output."""
    outputs, answer = program.signature.output_fields, program.answer_field
    corrected: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in said.expected.items():
        several = value if isinstance(value, Mapping) and name not in outputs else {name: value}
        for inner, given in several.items():
            output = answer if answer and inner in _ANSWERS and inner not in outputs else inner
            (corrected if output in outputs else rest)[output] = given
    return corrected, rest


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_SECONDS = 2.0  # then a bar is shown


@dataclass(frozen=True)
class Gathered:
    """What became of the traces.

    Attributes:
        candidates: ids of the new candidates, which have a label; also of those that have waited for it.
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
    ``expected_response``, or as an output of the signature), or has said that its answer is right (feedback), and
    nobody that it is wrong. Where somebody has said so and nothing more, it waits in ``to_label.jsonl`` until somebody
    corrects it. What LM judges say doesn't count. Doing it again adds nothing that is there already. Nothing enters a
    split by itself: see :func:`accept`.

    Args:
        agent: whose traces, and whose examples.
        traces: read them from there; ``None`` for those of the configured experiment.
        max_traces: look at so many of the newest, of those at most.

    Raises:
        DataError: the examples or the candidates can't be read, or there is no such experiment.
    """
    reading = _Reading(agent)
    if traces is None:
        traces = _judged(agent.config.mlflow, max_traces)
    for trace in itertools.islice(traces, max_traces):
        reading.take(trace)
    return reading.finish()


def _judged(settings: MlflowConfig, max_traces: int | None) -> Iterator[Trace]:
    """The traces of the experiment that people have said something of: of all others, the spans aren't read."""
    use_store(settings)
    if mlflow.get_experiment_by_name(settings.experiment) is None:
        raise DataError(
            f"{shown(settings.tracking_uri)} has no experiment {settings.experiment!r}: set mlflow.tracking_uri and "
            "mlflow.experiment to where the agent's traces are."
        )
    use_tracking(settings)
    heads = mlflow.search_traces(max_results=max_traces, return_type="list", include_spans=False, flush=True)
    judged = [head.info.trace_id for head in heads if human_feedback(head) is not None]
    for trace_id in tqdm(judged, desc="read", unit="trace", delay=_SECONDS):
        if (trace := mlflow.get_trace(trace_id)) is not None:  # it may have been deleted meanwhile
            yield trace


class _Reading:
    def __init__(self, agent: Agent):
        self._folder = agent.examples_folder
        self._program: Program = as_program(agent.build())
        self._inputs = list(self._program.signature.input_fields)
        self._rules = agent.config.data.redact
        self._allowed = _allowed(read_schema(self._folder))
        self._waiting = {name: read_candidates(self._folder, name) for name in (CANDIDATES, TO_LABEL)}
        self._asked = dict(self._known())
        self._labelled = {_trace_id(row) for row in self._waiting[CANDIDATES]}
        self._labelled |= {_trace_id(row) for row in read_candidates(self._folder, ACCEPTED)}
        self._unlabelled: dict[str, Candidate] = {}
        for row in self._waiting[TO_LABEL]:
            self._wait(row)
        self._new: dict[str, list[Candidate]] = {CANDIDATES: [], TO_LABEL: []}
        self._known_ones = 0
        self._redacted: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()

    def take(self, trace: Trace) -> None:
        """Make a candidate of a trace, if it is one."""
        said = human_feedback(trace)
        if said is None:
            return
        if trace.info.trace_id in self._labelled:
            self._known_ones += 1
            return
        try:
            told = read_trace(trace, said, self._program)
        except (RequestError, pydantic.ValidationError):
            self._skipped["the request can't be read"] += 1
        except Unusable as error:
            self._skipped[str(error)] += 1
        else:
            self._add(trace.info.trace_id, said, told)

    def finish(self) -> Gathered:
        """Write what is new."""
        near = self._near()
        for name, new in self._new.items():
            if (found := [*self._waiting[name], *new]) != read_candidates(self._folder, name):
                write_candidates(self._folder, found, name)
        return Gathered(
            candidates=tuple(row["id"] for row in self._new[CANDIDATES]),
            to_label=tuple(row["id"] for row in self._new[TO_LABEL]),
            known=self._known_ones,
            near=near,
            redacted=dict(self._redacted),
            skipped=dict(self._skipped),
        )

    def _known(self) -> Iterator[tuple[str, str]]:
        schema = read_schema(self._folder)
        rows = [row for split, path in split_files(self._folder).items() for row in split_rows(split, path, schema)]
        for row in rows:
            if isinstance(row, Row):
                yield self._text(row.values), row.name
        for waiting in self._waiting.values():
            for candidate in waiting:
                yield self._text(candidate), str(candidate.get("id"))

    def _text(self, values: Mapping[str, Any]) -> str:
        return same_text(input_text(values, self._inputs))

    def _add(self, trace_id: str, said: Feedback, told: LabelledInputs) -> None:
        redaction = Redaction(self._rules)
        inputs = redaction.apply(told.inputs)
        label = {name: value for name, value in redaction.apply(told.label).items() if self._allowed(name)}
        text = self._text(inputs)
        waits = self._unlabelled.get(trace_id) or self._unlabelled.get(text)
        if waits is not None and label:
            self._complete(waits, label, self._provenance(trace_id, said, told, redaction))
        elif waits is not None or text in self._asked:
            self._known_ones += 1
            return
        else:
            ident = f"trace-{trace_id.removeprefix('tr-')[:12]}"
            self._asked[text] = ident
            row = {"id": ident, **inputs, **label, PROVENANCE: self._provenance(trace_id, said, told, redaction)}
            self._new[CANDIDATES if label else TO_LABEL].append(row)
            if not label:
                self._wait(row)
        self._redacted += redaction.counts

    def _wait(self, row: Candidate) -> None:
        self._unlabelled |= {key: row for key in (_trace_id(row), self._text(row)) if key}

    def _complete(self, row: Candidate, label: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Make a candidate of a row that waits for its label; what a person has written into it meanwhile stays."""
        for rows in (self._waiting[TO_LABEL], self._new[TO_LABEL]):
            rows[:] = [other for other in rows if other is not row]
        self._unlabelled = {key: other for key, other in self._unlabelled.items() if other is not row}
        self._labelled.add(_trace_id(row))
        self._new[CANDIDATES].append({**label, **row, PROVENANCE: provenance})

    def _provenance(self, trace_id: str, said: Feedback, told: LabelledInputs, redaction: Redaction) -> dict[str, Any]:
        what = "corrected" if told.corrected else "right" if said.right else "wrong"
        provenance = {"trace_id": trace_id, "by": redaction.apply(said.by), "at": said.at, "said": what}
        if told.rest:
            provenance["expected"] = redaction.apply(told.rest)
        if not told.label and said.note:
            provenance["note"] = redaction.apply(said.note)
        return provenance

    def _near(self) -> dict[str, str]:
        """What asks nearly the same; each new one is told of it in its own row, too."""
        new = {row["id"]: row for rows in self._new.values() for row in rows}
        texts, names = list(self._asked), list(self._asked.values())
        found: dict[str, str] = {}
        for one, other, _ in near_pairs(texts, NEAR, most=1):
            late, early = (names[other], names[one]) if names[other] in new else (names[one], names[other])
            if late in new and late not in found:
                found[late] = new[late][PROVENANCE]["near"] = early
        return found


def _trace_id(row: Candidate) -> str:
    """Of which trace a candidate is; nothing where a person has written it."""
    provenance = row.get(PROVENANCE)
    return str(provenance.get("trace_id", "")) if isinstance(provenance, Mapping) else ""


def _allowed(schema: Mapping[str, Any] | None) -> Any:
    if schema is None or schema.get("additionalProperties") is not False:
        return lambda name: True
    return lambda name: name in schema.get("properties", {})
