"""The rules: what each requires of an endpoint, and why.

Sources: OpenAI's API reference, "Streaming events"; the types of the ``openai`` package; and the behaviour of that
package's stream reader, ``client.responses.stream()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oneturn.core.findings import Finding, Severity
from oneturn.core.secrets import redact


@dataclass(frozen=True)
class Rule:
    """A requirement of the protocol.

    Attributes:
        name: its name in reports.
        asks: the requirement, in one line.
        why: the consequence of breaking it.
        severity: the severity of a violation.
        weaker: the severity in a stream of MLflow's weaker contract, if it differs: one that has neither
            ``response.created`` nor ``response.output_item.added``. A stream with either must follow OpenAI's.
    """

    name: str
    asks: str
    why: str
    severity: Severity = Severity.error
    weaker: Severity | None = None


_E, _W, _N = Severity.error, Severity.warning, Severity.note

_ORDER = (
    Rule("empty-stream", "A stream has events.", "The client gets neither an answer nor an error."),
    Rule(
        "created-missing",
        "`response.created` is the first event.",
        "openai's `responses.stream()` raises on any other first event; MLflow doesn't require it.",
        _W,
    ),
    Rule(
        "created-misplaced",
        "`response.created` is sent once, before all other events.",
        "A second one starts a new answer.",
    ),
    Rule(
        "created-output",
        "`response.created` and the first `response.in_progress` have no output.",
        "openai's reader starts from this response and would duplicate the items.",
    ),
    Rule(
        "in-progress-missing",
        "`response.in_progress` follows `response.created`.",
        "OpenAI always sends it; a client may show that work has started.",
        _W,
    ),
    Rule(
        "in-progress-misplaced",
        "The first `response.in_progress` follows `response.created` directly.",
        "It reports an outdated state.",
    ),
    Rule(
        "in-progress-again",
        "`response.in_progress` is repeated later.",
        "A keep-alive; openai's reader ignores it.",
        _N,
    ),
    Rule(
        "sequence-missing",
        "Every event has a `sequence_number`.",
        "A client detects lost events and resumes a stream with it.",
        _E,
        _W,
    ),
    Rule("sequence-start", "`sequence_number` starts at 0.", "OpenAI's does; resuming depends on it.", _W),
    Rule(
        "sequence-gap", "`sequence_number` increases by one.", "A gap or a repetition means a lost or duplicated event."
    ),
    Rule(
        "terminal-missing",
        "The stream ends with a terminal event.",
        "Without it, a client can't tell a complete answer from a truncated one.",
        _E,
        _W,
    ),
    Rule(
        "terminal-twice",
        "There is one terminal event; only `error` may be followed by `response.failed`.",
        "A client stops at the first; the second may contradict it.",
    ),
    Rule("after-terminal", "Nothing follows the terminal event.", "A client has stopped reading by then."),
    Rule("response-status", "A response's `status` matches its event.", "Clients read either.", _E, _W),
    Rule("response-id-missing", "A response has an `id`.", "Logs and later requests refer to it.", _W),
    Rule(
        "response-id-changed",
        "The response's `id` is the same in all its events.",
        "Otherwise the events belong to different answers.",
    ),
    Rule(
        "response-changed",
        "`created_at`, `model` and `object` don't change.",
        "A client keeps the first values.",
        _W,
    ),
    Rule("untyped-event", "Every event has a `type`.", "A client can't interpret it."),
    Rule(
        "extra-event",
        "An event without `type` that MLflow or Databricks adds: a trace id, a trace.",
        "Other clients ignore it.",
        _N,
    ),
)

_ITEMS = (
    Rule(
        "item-not-added",
        "`response.output_item.added` is the first event of an item.",
        "openai's reader looks the item up by its index, and fails.",
        _E,
        _W,
    ),
    Rule(
        "item-not-done",
        "Every item ends with `response.output_item.done`.",
        "MLflow's traces, and clients of its contract, read only these events.",
    ),
    Rule(
        "item-left-open",
        "In a failed response too, started items are closed.",
        "A client shows them as still running.",
        _W,
    ),
    Rule("item-done-twice", "An item is done once.", "A client shows it twice."),
    Rule(
        "event-outside-item",
        "Events with an `item_id` are sent while that item is open.",
        "A client can't assign them: text is lost or ends up in another answer.",
    ),
    Rule("item-id-missing", "An item has an `id`.", "Its events can't be matched to it.", _E, _W),
    Rule(
        "item-id-changed", "An item's `id` is the same from added to done.", "A client shows two items instead of one."
    ),
    Rule("item-id-reused", "No two items share an `id`.", "A client that keys items by id loses one of them.", _E, _W),
    Rule(
        "item-changed",
        "The done item repeats the fields of the added item (type, name, call_id …).",
        "A client has already shown them.",
    ),
    Rule("item-status", "A done item's `status` is not `in_progress`.", "A client shows it as still running."),
    Rule(
        "output-index-missing", "Events of items have an `output_index`.", "openai's reader finds items by it.", _E, _W
    ),
    Rule(
        "output-index",
        "`output_index` is 0, 1, 2 … in the order of the added items, and doesn't change.",
        "openai's reader uses it as the index in its list.",
    ),
    Rule(
        "unknown-item",
        "An item of a type that the installed `openai` package doesn't have.",
        "The package passes it on untyped.",
        _N,
    ),
)

_TEXTS = (
    Rule(
        "text-adds-up",
        "The text deltas of a part add up to its `.done`, its done part and the done item's text.",
        "Clients of deltas and of the done item get different answers.",
    ),
    Rule(
        "refusal-adds-up",
        "The deltas of a refusal add up to it in the same way.",
        "Clients of deltas and of the done item get different refusals.",
    ),
    Rule(
        "arguments-add-up",
        "The deltas of a call's arguments, if any, continue the added item's and add up to the done item's.",
        "openai's reader appends the deltas to the added item's `arguments`, which must be empty.",
    ),
    Rule(
        "summary-adds-up",
        "The deltas of a reasoning summary, if any, add up to it.",
        "Clients of deltas and of the done item get different summaries.",
    ),
    Rule(
        "reasoning-adds-up",
        "The deltas of a reasoning text, if any, add up to it.",
        "Clients of deltas and of the done item get different reasoning.",
    ),
    Rule(
        "input-adds-up",
        "The deltas of a custom tool's or a code interpreter's input, if any, add up to it.",
        "A client that runs the streamed input runs something else.",
    ),
    Rule(
        "text-not-streamed",
        "A message's text is sent in deltas, at least one.",
        "A client that shows deltas shows nothing.",
        _E,
        _W,
    ),
    Rule(
        "text-done-missing", "Deltas end with their `.done`.", "A client can't tell that the text is complete.", _E, _W
    ),
    Rule("delta-after-done", "No delta or second `.done` follows a `.done`.", "The text was already complete."),
    Rule(
        "part-not-added",
        "`content_part.added` (for a summary `reasoning_summary_part.added`) precedes its text.",
        "openai's reader looks the part up by its index, and fails.",
        _E,
        _W,
    ),
    Rule("part-not-done", "Every added part is done, before its item.", "A client shows it as unfinished.", _E, _W),
    Rule(
        "part-order",
        "A part is added once, then its text, the text's `.done` and the part's `.done` follow, once each.",
        "Clients build parts in this order.",
    ),
    Rule(
        "annotations",
        "Annotations are sent in order, and match those of the done part and item.",
        "One of them lacks a source.",
    ),
    Rule(
        "annotation-not-streamed",
        "Each annotation has an `output_text.annotation.added`.",
        "Clients of deltas don't show the source.",
        _E,
        _W,
    ),
)

_CALLS = (
    Rule(
        "output-without-call",
        "A `function_call_output` follows the `function_call` with its `call_id`.",
        "The result belongs to no call; the LM rejects the next turn.",
    ),
    Rule(
        "call-without-output",
        "A `function_call` has its output, unless the turn ends so that the client can run it.",
        "The tool result is lost; the LM rejects the next turn.",
    ),
    Rule("call-id-reused", "A `call_id` identifies one call and one output.", "Results can't be matched to calls."),
    Rule("arguments-json", "A call's `arguments` are a JSON object.", "A client parses them.", _W),
)

_END = (
    Rule(
        "terminal-output",
        "The terminal response's `output` contains the done items, in order; it may leave out `incomplete` messages.",
        "Clients of the stream and of the terminal response get different answers.",
    ),
    Rule("usage-missing", "A completed response has `usage`.", "The cost is unknown.", _W),
    Rule(
        "usage-adds-up",
        "`total_tokens` is the sum of input and output tokens; details don't exceed their total.",
        "Billing depends on it.",
    ),
    Rule(
        "incomplete-reason",
        "`response.incomplete` has a reason in `incomplete_details.reason`.",
        "A client can't show the reason to the user.",
        _W,
    ),
    Rule(
        "own-reason",
        "`incomplete_details.reason` is not one of OpenAI's values.",
        "OpenAI has no value for a deadline or a server shutdown; its client passes it on.",
        _N,
    ),
    Rule(
        "own-code",
        "The `error.code` of `response.failed` is not one of OpenAI's values.",
        "OpenAI has no value for an agent's errors; its client passes it on.",
        _N,
    ),
    Rule("error-shape", "An error has a `code` and a `message`.", "A client handles errors by their code."),
    Rule(
        "error-leaks",
        "No error contains a traceback, a server path, or a likely secret.",
        "Every client can read it.",
    ),
    Rule("openai-types", "Fields have the types of the `openai` package.", "Clients read them without a check."),
    Rule(
        "openai-fields",
        "Fields that the types of the `openai` package require are present.",
        "Reading a missing one raises AttributeError; MLflow doesn't require these fields.",
        _W,
    ),
    Rule(
        "unknown-event",
        "An event of a type that the installed `openai` package doesn't have.",
        "The package passes it on untyped.",
        _N,
    ),
)

_HTTP = (
    Rule(
        "http-status",
        "A valid request is answered with 200, an invalid one with 4xx; never with 5xx.",
        "Clients and gateways retry a 5xx, which runs the agent again.",
    ),
    Rule(
        "http-error-shape",
        'An HTTP error is OpenAI\'s object: `{"error": {"message", "type", "code"}}`.',
        "openai's client reads message and code from it.",
        _W,
    ),
    Rule("http-error-mute", "An HTTP error is JSON with a message.", "The caller can't tell what to fix."),
    Rule("http-body", "A response is a JSON object.", "openai's client can't read it."),
    Rule(
        "not-a-stream",
        '`"stream": true` is answered as `text/event-stream`.',
        "openai's client reads no events from it; `mlflow models serve` answers like this.",
    ),
    Rule(
        "stream-json",
        "The data of every server-sent event is a JSON object, or `[DONE]`.",
        "openai's client parses each one and raises.",
    ),
    Rule(
        "stream-cut",
        "A stream ends with a terminal event or `[DONE]`, within the timeout.",
        "The answer is lost.",
    ),
    Rule("answer-late", "A request is answered within the timeout.", "The client has disconnected by then."),
    Rule(
        "bad-request-accepted",
        "A request that is not a JSON object, or has no input, is rejected.",
        "The caller's mistake gets an unrelated answer instead of an error.",
    ),
    Rule(
        "unknown-input-ignored",
        "An unknown key of `custom_inputs` is accepted without an error.",
        "A misspelt key is ignored.",
        _N,
    ),
    Rule(
        "string-input-refused",
        "A string as `input` is rejected; OpenAI accepts it, MLflow accepts lists only.",
        "Send a list of items.",
        _N,
    ),
    Rule(
        "stream-differs",
        "The stream has the same content as the response without a stream (with `--deterministic`).",
        "One of the two is wrong.",
    ),
    Rule(
        "healthy-after-disconnect",
        "After clients disconnect in mid-stream, the server answers as before.",
        "Every closed browser tab costs a worker.",
    ),
    Rule(
        "text-lost",
        "If one stream has text deltas, every stream has them.",
        "Stream listeners are shared or single-use: a client that shows deltas shows nothing.",
    ),
    Rule(
        "marker-lost",
        "An agent that repeats its question (with `--echo`) repeats the marker.",
        "A part of the answer is lost.",
    ),
    Rule("marker-mixed", "Nothing of another request appears in an answer.", "One user reads another's conversation."),
    Rule(
        "ids-shared",
        "No two concurrent answers share a response's or an item's `id`.",
        "One request overwrites the state of another.",
    ),
    Rule(
        "ids-constant",
        "No answer reuses ids of an earlier one.",
        "A client that keys items by id loses the old ones.",
        _W,
    ),
    Rule(
        "refused-under-load",
        "All concurrent requests are answered.",
        "429 and 503 are valid answers, but those streams are not checked.",
        _W,
    ),
)

SECTIONS: dict[str, tuple[Rule, ...]] = {
    "The stream as a whole": _ORDER,
    "Items": _ITEMS,
    "Texts in deltas": _TEXTS,
    "Calls": _CALLS,
    "Terminal events, errors, types": _END,
    "Over HTTP": _HTTP,
}

RULES: dict[str, Rule] = {rule.name: rule for section in SECTIONS.values() for rule in section}
"""All rules by name, in the order of the documentation."""


class Findings:
    """Collects violations of rules, without duplicates.

    Args:
        weaker: whether to use the severities of MLflow's weaker contract.
    """

    def __init__(self, weaker: bool = False):
        self._weaker = weaker
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(self, rule: str, message: str, event: int | None = None) -> None:
        """Add a violation of the rule named ``rule``."""
        broken = RULES[rule]
        severity = broken.weaker if self._weaker and broken.weaker else broken.severity
        self._findings.setdefault((rule, message), Finding(severity, rule, message, event=event))

    def in_order(self) -> list[Finding]:
        """Return the violations in stream order; those without an event last."""
        return sorted(self._findings.values(), key=lambda finding: (finding.event is None, finding.event or 0))


def format_value(value: Any, max_length: int = 60) -> str:
    """Return the ``repr`` of ``value`` for a message: shortened, without secrets."""
    text = redact(repr(value))
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
