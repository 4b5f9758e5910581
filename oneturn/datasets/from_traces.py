"""Collect candidate examples from MLflow traces with human feedback."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dspy
import mlflow
from mlflow.entities import Assessment, AssessmentSourceType, Span, Trace
from tqdm.auto import tqdm

from oneturn.agent import Agent
from oneturn.config.tracking import use_store, use_tracking, without_credentials
from oneturn.core.serialization import plain
from oneturn.core.splits import Row, read_schema, split_files, split_rows
from oneturn.core.terminal import can_redraw
from oneturn.datasets.duplicates import NEAR, input_text, near_pairs, normalize_text
from oneturn.datasets.redaction import Redaction
from oneturn.datasets.review import (
    ACCEPTED,
    CANDIDATES,
    PROVENANCE,
    REJECTED,
    TO_LABEL,
    Candidate,
    locked,
    read_candidates,
    write_candidates,
)
from oneturn.errors import DataError, EndpointError, RequestError
from oneturn.programs import as_program
from oneturn.programs.program import Program
from oneturn.responses.parsing import validate_request
from oneturn.responses.reply import read_response
from oneturn.responses.request import program_inputs
from oneturn.responses.tracing import COMPLETED, OUTCOME

_YES = ("yes", "true", "correct", "pass", "good", "up", "thumbs_up")
_NO = ("no", "false", "incorrect", "fail", "bad", "down", "thumbs_down")


@dataclass(frozen=True)
class Feedback:
    """Human feedback on one answer.

    Attributes:
        right: whether the answer is correct; ``None`` without a yes or no.
        expected: the expected values, by expectation name.
        by: the author of the last assessment.
        at: the time of the last assessment, in UTC.
        note: its rationale.
    """

    right: bool | None
    expected: Mapping[str, Any]
    by: str
    at: str
    note: str | None


def human_feedback(trace: Trace) -> Feedback | None:
    """Return the human feedback on a trace, or ``None`` without any.

    Only the last assessment per person and name counts. An answer is right if all verdicts on it are yes.
    """
    own = [item for item in trace.info.assessments or [] if _is_human(item) and item.valid is not False]
    if not own:
        return None
    own.sort(key=_timestamp)
    values = {item.name: item.expectation.value for item in own if item.expectation}
    expected = {name: value for name, value in values.items() if not _is_blank(value)}
    verdicts = {(item.name, item.source.source_id): _verdict(item) for item in own if item.feedback}
    clear = [verdict for verdict in verdicts.values() if verdict is not None]
    conclusive = [item for item in own if item.expectation or _verdict(item) is not None]
    last = (conclusive or own)[-1]
    at = datetime.fromtimestamp(_timestamp(last) / 1000, timezone.utc).isoformat(timespec="seconds")
    right = all(clear) if clear else None
    return Feedback(right, expected, last.source.source_id or "unknown", at, last.rationale)


def _is_human(assessment: Assessment) -> bool:
    return bool(assessment.source.source_type == AssessmentSourceType.HUMAN)


def _timestamp(assessment: Assessment) -> int:
    return assessment.last_update_time_ms or assessment.create_time_ms or 0


def _verdict(assessment: Assessment) -> bool | None:
    """Return yes or no; ``None`` for a comment or a number, whose scale is unknown."""
    value = assessment.feedback.value if assessment.feedback else None
    plain = value.strip().casefold() if isinstance(value, str) else value
    if plain is True or plain in _YES:
        return True
    return False if plain is False or plain in _NO else None


_ANSWERS = ("expected_response", "response", "answer", "expected_answer")
"""Names that MLflow and its reviewers use for the expected answer."""


class UnusableTrace(DataError):
    """A trace that can't become an example; the message is the reason."""


@dataclass(frozen=True)
class LabelledInputs:
    """The inputs and the label of a trace, as JSON-compatible values.

    Attributes:
        inputs: the inputs, by the signature's input fields.
        label: the correct values, by output field; empty if they are unknown.
        rest: expected values that aren't outputs of the signature.
        corrected: whether the label contains expectations, or the feedback has no yes or no.
    """

    inputs: Mapping[str, Any]
    label: Mapping[str, Any]
    rest: Mapping[str, Any]
    corrected: bool


def read_trace(trace: Trace, feedback: Feedback, program: Program) -> LabelledInputs:
    """Read a trace of the program.

    Raises:
        UnusableTrace: it isn't a trace of the agent, its feedback is inconclusive, or an input can't be stored.
        RequestError: the request isn't a valid Responses request, or the program doesn't accept it.
    """
    if feedback.right is None and not feedback.expected:
        raise UnusableTrace("the feedback is neither yes nor no, and has no expected answer")
    span, request = _agent_span(trace)
    signature, answer = program.signature, program.answer_field
    inputs = program_inputs(signature, validate_request(dict(request)), answer)
    if any(isinstance(value, dspy.Type) for values in inputs.values() for value in _as_list(values)):
        raise UnusableTrace("the request contains an image or a file")
    corrected, rest = _human_labels(feedback, program)
    label = {**(_agent_outputs(span, program) if feedback.right else {}), **corrected}
    required = {name for name, field in signature.input_fields.items() if field.is_required()}
    row_inputs = {name: plain(value) for name, value in inputs.items() if value is not None or name in required}
    return LabelledInputs(row_inputs, label, rest, bool(corrected) or feedback.right is None)


def _agent_span(trace: Trace) -> tuple[Span, Mapping[str, Any]]:
    """Return the outermost span that holds a Responses request, and the request; a server's span may be above it."""
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        request = span.inputs.get("request") if isinstance(span.inputs, Mapping) else None
        if isinstance(request, Mapping) and "input" in request:
            return span, request
    raise UnusableTrace("not a trace of a Responses request")


def agent_outputs(trace: Trace, program: Program) -> dict[str, Any]:
    """Return the outputs that the agent gave, by field; empty unless the run completed.

    Raises:
        UnusableTrace: it isn't a trace of the agent.
    """
    return _agent_outputs(_agent_span(trace)[0], program)


def _agent_outputs(span: Span, program: Program) -> dict[str, Any]:
    """Return the agent's outputs by field; empty unless the run completed."""
    outputs = span.outputs if isinstance(span.outputs, Mapping) else {}
    if span.get_attribute(OUTCOME) not in (None, COMPLETED):
        return {}
    try:
        reply = read_response(outputs)
    except EndpointError:  # the run failed, or was stopped
        return {}
    if reply.approvals:
        return {}
    answer = {program.answer_field: reply.text} if program.answer_field else {}
    values = {**reply.custom_outputs, **answer}
    return {name: value for name, value in values.items() if name in program.signature.output_fields}


def _human_labels(feedback: Feedback, program: Program) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the expected values that are outputs of the program, and those that aren't."""
    outputs, answer = program.signature.output_fields, program.answer_field
    corrected: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in feedback.expected.items():
        entries = value if isinstance(value, Mapping) and name not in outputs else {name: value}
        for entry_name, entry in entries.items():
            if _is_blank(entry):
                continue
            output = answer if answer and entry_name in _ANSWERS and entry_name not in outputs else entry_name
            (corrected if output in outputs else rest)[output] = entry
    return corrected, rest


def _is_blank(value: Any) -> bool:
    """Whether a reviewer's field was left empty; an empty text or object is no correction, an empty list may be one."""
    if isinstance(value, Mapping):
        return all(map(_is_blank, value.values()))
    return value is None or (isinstance(value, str) and not value.strip())


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_SECONDS = 2.0  # delay before the progress bar is shown


@dataclass(frozen=True)
class CollectResult:
    """The result of :func:`from_traces`.

    Attributes:
        candidates: ids of the new candidates with a label, including former entries of ``to_label.jsonl``.
        to_label: ids of the new candidates without a label: the answer is wrong, the correct one unknown.
        known: number of traces whose question is an example or a candidate already.
        near: ids of new candidates, each with the id of the example or candidate with nearly the same question.
        redacted: number of matches per redaction rule.
        skipped: number of unusable traces per reason.
    """

    candidates: tuple[str, ...]
    to_label: tuple[str, ...]
    known: int
    near: Mapping[str, str]
    redacted: Mapping[str, int]
    skipped: Mapping[str, int]


def from_traces(agent: Agent, traces: Iterable[Trace] | None = None, *, max_traces: int | None = None) -> CollectResult:
    """Collect candidate examples from traces with human feedback.

    A trace becomes a labelled candidate if a person corrected it (an expectation named ``expected_response`` or like an
    output of the signature), or judged its answer right (feedback) and none judged it wrong. A trace that is only
    judged wrong is written to ``to_label.jsonl`` until it is corrected. Feedback of LM judges is ignored. Repeated
    calls add no duplicates. Candidates enter a split only through :func:`accept`.

    Args:
        agent: the agent whose traces are read and whose examples folder is written.
        traces: the traces to read; ``None`` for those of the configured experiment.
        max_traces: the maximum number of traces to read, newest first.

    Returns:
        The new candidates, and counts of what was redacted and skipped.

    Raises:
        DataError: the examples or the candidates can't be read, or the experiment doesn't exist.
    """
    collector = _Collector(agent)
    if traces is None:
        traces = _traces_with_feedback(agent, max_traces)
    for trace in itertools.islice(traces, max_traces):
        collector.add(trace)
    return collector.finish()


def _traces_with_feedback(agent: Agent, max_traces: int | None) -> Iterator[Trace]:
    """Yield the experiment's traces with human feedback; the spans of other traces aren't read."""
    settings = agent.config.mlflow
    use_store(settings, agent.root)
    if mlflow.get_experiment_by_name(settings.experiment) is None:
        raise DataError(
            f"{without_credentials(mlflow.get_tracking_uri())} has no experiment {settings.experiment!r}: set "
            "mlflow.tracking_uri and mlflow.experiment to the agent's traces."
        )
    use_tracking(settings, agent.root)
    heads = mlflow.search_traces(max_results=max_traces, return_type="list", include_spans=False, flush=True)
    trace_ids = [head.info.trace_id for head in heads if human_feedback(head) is not None]
    for trace_id in tqdm(trace_ids, desc="read", unit="trace", delay=_SECONDS, disable=not can_redraw()):
        if (trace := mlflow.get_trace(trace_id)) is not None:  # it may have been deleted since the search
            yield trace


class _Collector:
    def __init__(self, agent: Agent):
        self._folder = agent.examples_folder
        self._program: Program = as_program(agent.build())
        self._inputs = list(self._program.signature.input_fields)
        self._rules = agent.config.data.redact
        self._is_allowed_field = _field_filter(read_schema(self._folder))
        self._pending = {name: read_candidates(self._folder, name) for name in (CANDIDATES, TO_LABEL)}
        self._names_by_text = dict(self._existing_texts())
        self._labelled = {_trace_id(row) for row in self._pending[CANDIDATES]}
        for name in (ACCEPTED, REJECTED):
            self._labelled |= {_trace_id(row) for row in read_candidates(self._folder, name)}
        self._unlabelled: dict[str, Candidate] = {}
        for row in self._pending[TO_LABEL]:
            self._add_unlabelled(row)
        self._completed: list[Candidate] = []
        self._new: dict[str, list[Candidate]] = {CANDIDATES: [], TO_LABEL: []}
        self._known_count = 0
        self._redacted: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()

    def add(self, trace: Trace) -> None:
        """Turn a trace into a candidate if it has human feedback."""
        feedback = human_feedback(trace)
        if feedback is None:
            return
        if trace.info.trace_id in self._labelled:
            self._known_count += 1
            return
        try:
            labelled = read_trace(trace, feedback, self._program)
        except RequestError:
            self._skipped["the request can't be read"] += 1
        except UnusableTrace as error:
            self._skipped[str(error)] += 1
        else:
            self._add_row(trace.info.trace_id, feedback, labelled)

    def finish(self) -> CollectResult:
        """Write the new candidates and return the result."""
        near = self._mark_near_duplicates()
        with locked(self._folder):
            for name, new in self._new.items():
                waiting = read_candidates(self._folder, name)  # as reviewers have left them
                if (candidates := [*(row for row in waiting if row not in self._completed), *new]) != waiting:
                    write_candidates(self._folder, candidates, name)
        return CollectResult(
            candidates=tuple(row["id"] for row in self._new[CANDIDATES]),
            to_label=tuple(row["id"] for row in self._new[TO_LABEL]),
            known=self._known_count,
            near=near,
            redacted=dict(self._redacted),
            skipped=dict(self._skipped),
        )

    def _existing_texts(self) -> Iterator[tuple[str, str]]:
        schema = read_schema(self._folder)
        rows = [row for split, path in split_files(self._folder).items() for row in split_rows(split, path, schema)]
        for row in rows:
            if isinstance(row, Row):
                yield self._text(row.values), row.name
        for candidates in self._pending.values():
            for candidate in candidates:
                yield self._text(candidate), str(candidate.get("id"))

    def _text(self, values: Mapping[str, Any]) -> str:
        return normalize_text(input_text(values, self._inputs))

    def _add_row(self, trace_id: str, feedback: Feedback, labelled: LabelledInputs) -> None:
        redaction = Redaction(self._rules)
        inputs = redaction.apply(labelled.inputs)
        label = {name: value for name, value in redaction.apply(labelled.label).items() if self._is_allowed_field(name)}
        text = self._text(inputs)
        unlabelled = self._unlabelled.get(trace_id) or self._unlabelled.get(text)
        if unlabelled is not None and label:
            self._complete(unlabelled, label, self._provenance(trace_id, feedback, labelled, redaction))
        elif unlabelled is not None or text in self._names_by_text:
            self._known_count += 1
            return
        else:
            ident = f"trace-{trace_id.removeprefix('tr-')[:12]}"
            self._names_by_text[text] = ident
            row = {
                "id": ident,
                **inputs,
                **label,
                PROVENANCE: self._provenance(trace_id, feedback, labelled, redaction),
            }
            self._new[CANDIDATES if label else TO_LABEL].append(row)
            if not label:
                self._add_unlabelled(row)
        self._redacted += redaction.counts

    def _add_unlabelled(self, row: Candidate) -> None:
        self._unlabelled |= {key: row for key in (_trace_id(row), self._text(row)) if key}

    def _complete(self, row: Candidate, label: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Turn an unlabelled row into a candidate; values that a person has written into it take precedence."""
        self._completed.append(row)
        self._new[TO_LABEL] = [other for other in self._new[TO_LABEL] if other is not row]
        self._unlabelled = {key: other for key, other in self._unlabelled.items() if other is not row}
        self._labelled.add(_trace_id(row))
        self._new[CANDIDATES].append({**label, **row, PROVENANCE: provenance})

    def _provenance(
        self, trace_id: str, feedback: Feedback, labelled: LabelledInputs, redaction: Redaction
    ) -> dict[str, Any]:
        verdict = "corrected" if labelled.corrected else "right" if feedback.right else "wrong"
        provenance = {"trace_id": trace_id, "by": redaction.apply(feedback.by), "at": feedback.at, "said": verdict}
        if labelled.rest:
            provenance["expected"] = redaction.apply(labelled.rest)
        if not labelled.label and feedback.note:
            provenance["note"] = redaction.apply(feedback.note)
        return provenance

    def _mark_near_duplicates(self) -> dict[str, str]:
        """Find near-duplicate questions of new rows; each such row gets the other id in its provenance."""
        new = {row["id"]: row for rows in self._new.values() for row in rows}
        texts, names = list(self._names_by_text), list(self._names_by_text.values())
        near: dict[str, str] = {}
        for one, other, _ in near_pairs(texts, NEAR, most=1):
            newer, older = (names[other], names[one]) if names[other] in new else (names[one], names[other])
            if newer in new and newer not in near:
                near[newer] = new[newer][PROVENANCE]["near"] = older
        return near


def _trace_id(row: Candidate) -> str:
    """Return the candidate's trace id; empty for a candidate that a person wrote."""
    provenance = row.get(PROVENANCE)
    return str(provenance.get("trace_id", "")) if isinstance(provenance, Mapping) else ""


def _field_filter(schema: Mapping[str, Any] | None) -> Any:
    if schema is None or schema.get("additionalProperties") is not False:
        return lambda name: True
    return lambda name: name in schema.get("properties", {})
