"""The rules: what each asks of an endpoint, and who needs it.

Sources: OpenAI's API reference, "Streaming events"; the types of the ``openai`` package; and what that package's own
reader of streams, ``client.responses.stream()``, does with the events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oneturn.core.findings import Severity


@dataclass(frozen=True)
class Rule:
    """What must hold.

    Attributes:
        name: its name in reports.
        asks: what it asks, in one line.
        why: who needs it.
        severity: how bad it is to break it.
        weaker: how bad in a stream of MLflow's weaker contract, if that differs: one that has neither
            ``response.created`` nor ``response.output_item.added``. Who begins as OpenAI must go on as OpenAI.
    """

    name: str
    asks: str
    why: str
    severity: Severity = Severity.error
    weaker: Severity | None = None


_E, _W, _N = Severity.error, Severity.warning, Severity.note

_ORDER = (
    Rule("empty-stream", "A stream has events.", "A client waits, and gets neither an answer nor an error."),
    Rule(
        "created-missing",
        "`response.created` is the first event.",
        "openai's `responses.stream()` raises on any other first event; MLflow doesn't ask for it.",
        _W,
    ),
    Rule("created-misplaced", "`response.created` comes once, before all others.", "A second one starts a new answer."),
    Rule(
        "created-output",
        "`response.created` and the first `response.in_progress` hold no output yet.",
        "openai's reader starts from this response and would have the items twice.",
    ),
    Rule(
        "in-progress-missing",
        "`response.in_progress` follows `response.created`.",
        "OpenAI always sends it; a client may show that work has begun.",
        _W,
    ),
    Rule(
        "in-progress-misplaced",
        "The first `response.in_progress` comes right after `response.created`.",
        "It tells a state that is over by then.",
    ),
    Rule(
        "in-progress-again",
        "`response.in_progress` comes again later on.",
        "A sign of life; openai's reader passes over it.",
        _N,
    ),
    Rule(
        "sequence-missing",
        "Every event has a `sequence_number`.",
        "A client finds lost events by it, and resumes after it.",
        _E,
        _W,
    ),
    Rule("sequence-start", "`sequence_number` starts at 0.", "OpenAI's does; resuming counts from there.", _W),
    Rule("sequence-gap", "`sequence_number` grows by one.", "A gap or a repetition is a lost or doubled event."),
    Rule(
        "terminal-missing",
        "The stream ends with a terminal event.",
        "Without it a whole answer and one that was cut off look the same.",
        _E,
        _W,
    ),
    Rule(
        "terminal-twice",
        "There is one terminal event; only `error` may be followed by `response.failed`.",
        "A client stops at the first, and the second may say otherwise.",
    ),
    Rule("after-terminal", "Nothing follows the terminal event.", "A client has stopped reading."),
    Rule("response-status", "A response's `status` is that of its event.", "Clients look at either.", _E, _W),
    Rule("response-id-missing", "A response has an `id`.", "Logs and later requests name it.", _W),
    Rule("response-id-changed", "The response's `id` is the same in all its events.", "Events of another answer."),
    Rule(
        "response-changed",
        "`created_at`, `model` and `object` stay what they were.",
        "A client keeps what it was told first.",
        _W,
    ),
    Rule("untyped-event", "Every event has a `type`.", "A client can't tell what it is."),
    Rule(
        "extra-event",
        "An event without `type` that MLflow or Databricks adds: a trace id, a trace.",
        "Other clients pass it over.",
        _N,
    ),
)

_ITEMS = (
    Rule(
        "item-not-added",
        "`response.output_item.added` comes before all else of an item.",
        "openai's reader looks the item up by its place, and fails.",
        _E,
        _W,
    ),
    Rule(
        "item-not-done",
        "Every item ends with `response.output_item.done`.",
        "MLflow's traces, and clients of its contract, are made of these events alone.",
    ),
    Rule(
        "item-left-open",
        "Also in a response that failed, items that were begun are closed.",
        "A client shows them as still running.",
        _W,
    ),
    Rule("item-done-twice", "An item is done once.", "A client has it twice."),
    Rule(
        "event-outside-item",
        "Events with an `item_id` come while that item is open.",
        "A client has nowhere to put them: text is lost, or lands in another answer.",
    ),
    Rule("item-id-missing", "An item has an `id`.", "Its events can't be put together.", _E, _W),
    Rule("item-id-changed", "An item's `id` is the same from added to done.", "A client has two items for one."),
    Rule("item-id-reused", "No two items share an `id`.", "A client keyed by id keeps one of them.", _E, _W),
    Rule(
        "item-changed",
        "What the added item said (type, name, call_id …) holds for the done item.",
        "A client has shown it by then.",
    ),
    Rule("item-status", "A done item's `status` is not `in_progress`.", "A client shows it as still running."),
    Rule(
        "output-index-missing", "Events of items have an `output_index`.", "openai's reader finds items by it.", _E, _W
    ),
    Rule(
        "output-index",
        "Items are numbered 0, 1, 2 … as they are added, and keep their number.",
        "openai's reader takes it as the place in its list.",
    ),
    Rule("unknown-item", "An item whose type the installed `openai` doesn't know.", "It passes it on untyped.", _N),
)

_TEXTS = (
    Rule(
        "text-adds-up",
        "The text deltas of a part, put together, are its `.done`, its done part and the done item's.",
        "Whoever reads deltas has another answer than who reads the end.",
    ),
    Rule(
        "refusal-adds-up",
        "The deltas of a refusal add up to it in the same way.",
        "Whoever reads deltas has another refusal than who reads the end.",
    ),
    Rule(
        "arguments-add-up",
        "The deltas of a call's arguments, if any come, add up to them, from what the added item had.",
        "openai's reader appends the deltas to the added item's `arguments`: they must begin empty there.",
    ),
    Rule(
        "summary-adds-up",
        "The deltas of a reasoning summary, if any come, add up to it.",
        "Whoever reads deltas has another thought than who reads the end.",
    ),
    Rule(
        "reasoning-adds-up",
        "The deltas of a reasoning text, if any come, add up to it.",
        "Whoever reads deltas has another thought than who reads the end.",
    ),
    Rule(
        "input-adds-up",
        "The deltas of a custom tool's or a code interpreter's input, if any come, add up to it.",
        "Whoever runs what the deltas say runs something else.",
    ),
    Rule(
        "text-not-streamed",
        "A message's text comes in deltas, be it a single one.",
        "A client that shows deltas shows nothing.",
        _E,
        _W,
    ),
    Rule(
        "text-done-missing", "Deltas end with their `.done`.", "A client doesn't know that the text is whole.", _E, _W
    ),
    Rule("delta-after-done", "No delta or second `.done` follows a `.done`.", "The text was told to be whole."),
    Rule(
        "part-not-added",
        "`content_part.added` (for a summary `reasoning_summary_part.added`) precedes its text.",
        "openai's reader looks the part up by its place, and fails.",
        _E,
        _W,
    ),
    Rule("part-not-done", "Every part that was added is done, before its item.", "It seems unfinished.", _E, _W),
    Rule(
        "part-order",
        "A part is added once, then come its text, the text's `.done`, the part's `.done`, once each.",
        "Clients build parts in this order.",
    ),
    Rule(
        "annotations",
        "Annotations are told in order, and are those of the done part and item.",
        "A source is missing in one of them.",
    ),
    Rule(
        "annotations-not-told",
        "Each annotation has an `output_text.annotation.added`.",
        "A client of deltas doesn't show the source.",
        _E,
        _W,
    ),
)

_CALLS = (
    Rule(
        "output-without-call",
        "A `function_call_output` follows the `function_call` with its `call_id`.",
        "A result of nothing; the LM's next turn is refused for it.",
    ),
    Rule(
        "call-without-output",
        "A `function_call` has its output, unless the turn ended for the client to run it.",
        "A lost tool result; the next turn is refused for it.",
    ),
    Rule("call-id-reused", "A `call_id` names one call and one output.", "Results can't be told apart."),
    Rule("arguments-json", "A call's `arguments` are a JSON object.", "A client parses them.", _W),
)

_END = (
    Rule(
        "terminal-output",
        "The terminal response's `output` is the items that were done, in order.",
        "Whoever reads the end has another answer than who read the stream.",
    ),
    Rule("usage-missing", "A completed response has `usage`.", "Nobody knows what it cost.", _W),
    Rule(
        "usage-adds-up",
        "`total_tokens` is the sum of input and output, of which the details are parts.",
        "Bills are made of it.",
    ),
    Rule(
        "incomplete-reason",
        "`response.incomplete` says why, in `incomplete_details.reason`.",
        "A client can't tell the user.",
        _W,
    ),
    Rule(
        "own-reason",
        "`incomplete_details.reason` is none of the reasons that OpenAI has.",
        "OpenAI has none for a deadline, or for a server that is stopped; its client passes it on.",
        _N,
    ),
    Rule("error-shape", "An error has a `code` and a `message`.", "A client chooses what to do by the code."),
    Rule(
        "error-leaks",
        "No error holds a traceback, a path of the server, or what looks like a secret.",
        "It is shown to anybody who asks.",
    ),
    Rule("openai-types", "What is sent has the types that `openai` gives it.", "Its fields are read without a check."),
    Rule(
        "openai-fields",
        "What `openai`'s types need is there.",
        "Reading it raises AttributeError; MLflow doesn't ask for these fields.",
        _W,
    ),
    Rule("unknown-event", "An event whose type the installed `openai` doesn't know.", "It passes it on untyped.", _N),
)

_HTTP = (
    Rule(
        "http-status",
        "A good request is answered with 200, a bad one with 4xx; never with 5xx.",
        "Clients and gateways retry a 5xx, and so run the agent again.",
    ),
    Rule(
        "http-error-shape",
        'An HTTP error is OpenAI\'s object: `{"error": {"message", "type", "code"}}`.',
        "openai's client takes message and code from there.",
        _W,
    ),
    Rule("http-error-mute", "An HTTP error is JSON with a message.", "Nobody knows what to mend."),
    Rule("http-body", "A response is a JSON object.", "openai's client can't read it."),
    Rule(
        "not-a-stream",
        '`"stream": true` is answered as `text/event-stream`.',
        "openai's client finds no event in it; `mlflow models serve` does this.",
    ),
    Rule(
        "stream-json",
        "The data of every server-sent event is a JSON object, or `[DONE]`.",
        "openai's client parses each and raises.",
    ),
    Rule(
        "stream-cut",
        "A stream ends by itself, with a terminal event or `[DONE]`, in the time given.",
        "The answer is lost.",
    ),
    Rule("answer-late", "A request is answered in the time given.", "The client has gone."),
    Rule(
        "bad-request-accepted",
        "What is no JSON object, or has no input, is refused.",
        "A mistake of the caller becomes an answer to something else.",
    ),
    Rule(
        "unknown-input-ignored",
        "An unknown key of `custom_inputs` is accepted without a word.",
        "A misspelt key is passed over.",
        _N,
    ),
    Rule(
        "string-input-refused",
        "A string as `input` is refused; OpenAI takes it, MLflow takes lists only.",
        "Send a list of items.",
        _N,
    ),
    Rule(
        "stream-differs",
        "The stream says what the response without a stream says (asked for: deterministic).",
        "One of them isn't the answer.",
    ),
    Rule(
        "healthy-after-disconnect",
        "After clients went away in mid-stream, the server answers as before.",
        "Every closed browser tab costs a worker.",
    ),
    Rule(
        "text-lost",
        "If one stream's text comes in deltas, every stream's does.",
        "Shared or used-up listeners: the client that shows deltas shows nothing.",
    ),
    Rule(
        "marker-lost",
        "An agent that repeats its question (asked for: echo) repeats the whole of it.",
        "A part of the answer is lost.",
    ),
    Rule("marker-mixed", "Nothing of another request appears in an answer.", "One user reads another's conversation."),
    Rule(
        "ids-shared",
        "No two answers at the same time share a response's or an item's `id`.",
        "State of one request is overwritten by another.",
    ),
    Rule(
        "ids-constant", "No answer has ids of an answer before.", "A client that keeps items by id loses old ones.", _W
    ),
    Rule(
        "refused-under-load",
        "As many requests as asked for are answered at once.",
        "429 and 503 are honest, but nothing was seen.",
        _W,
    ),
)

SECTIONS: dict[str, tuple[Rule, ...]] = {
    "The frame of a stream": _ORDER,
    "Items": _ITEMS,
    "Texts in pieces": _TEXTS,
    "Calls": _CALLS,
    "Endings, errors, types": _END,
    "Over HTTP": _HTTP,
}

RULES: dict[str, Rule] = {rule.name: rule for section in SECTIONS.values() for rule in section}
"""All rules by name, in the order of the documentation."""


@dataclass(frozen=True)
class Violation:
    """A rule that doesn't hold.

    Attributes:
        rule: the rule's name; :data:`RULES` explains it.
        severity: how bad it is.
        message: what was found.
        event: the place in the stream, from 0, if it has one.
    """

    rule: str
    severity: Severity
    message: str
    event: int | None = None

    def __str__(self) -> str:
        place = "" if self.event is None else f" (event {self.event})"
        return f"{self.severity.value} {self.rule}: {self.message}{place}"


class Findings:
    """The violations found so far; each is kept once.

    Args:
        weaker: whether MLflow's weaker contract is what is spoken.
    """

    def __init__(self, weaker: bool = False):
        self._weaker = weaker
        self._found: dict[tuple[str, str], Violation] = {}

    def add(self, rule: str, message: str, event: int | None = None) -> None:
        """``rule`` doesn't hold, as ``message`` says."""
        asked = RULES[rule]
        severity = asked.weaker if self._weaker and asked.weaker else asked.severity
        self._found.setdefault((rule, message), Violation(rule, severity, message, event))

    def in_order(self) -> list[Violation]:
        """All of them, by their place in the stream; those without one last."""
        return sorted(self._found.values(), key=lambda violation: (violation.event is None, violation.event or 0))


def shown(value: Any, longest: int = 60) -> str:
    """``value`` as a message shows it: short."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
