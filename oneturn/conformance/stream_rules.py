"""The rules of streams and responses.

Sources: OpenAI's API reference, "Streaming events"; the types of the ``openai`` package; and the behaviour of that
package's stream reader, ``client.responses.stream()``.
"""

from oneturn.conformance.rule import E, N, Rule, W

ORDER = (
    Rule("empty-stream", "A stream has events.", "The client gets neither an answer nor an error."),
    Rule(
        "created-missing",
        "`response.created` is the first event.",
        "openai's `responses.stream()` raises on any other first event; MLflow doesn't require it.",
        W,
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
        W,
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
        N,
    ),
    Rule(
        "sequence-missing",
        "Every event has a `sequence_number`.",
        "A client detects lost events and resumes a stream with it.",
        E,
        W,
    ),
    Rule("sequence-start", "`sequence_number` starts at 0.", "OpenAI's does; resuming depends on it.", W),
    Rule(
        "sequence-gap", "`sequence_number` increases by one.", "A gap or a repetition means a lost or duplicated event."
    ),
    Rule(
        "terminal-missing",
        "The stream ends with a terminal event.",
        "Without it, a client can't tell a complete answer from a truncated one.",
        E,
        W,
    ),
    Rule(
        "terminal-twice",
        "There is one terminal event; only `error` may be followed by `response.failed`.",
        "A client stops at the first; the second may contradict it.",
    ),
    Rule("after-terminal", "Nothing follows the terminal event.", "A client has stopped reading by then."),
    Rule("response-status", "A response's `status` matches its event.", "Clients read either.", E, W),
    Rule("response-id-missing", "A response has an `id`.", "Logs and later requests refer to it.", W),
    Rule(
        "response-id-changed",
        "The response's `id` is the same in all its events.",
        "Otherwise the events belong to different answers.",
    ),
    Rule(
        "response-changed",
        "`created_at`, `model` and `object` don't change.",
        "A client keeps the first values.",
        W,
    ),
    Rule("untyped-event", "Every event has a `type`.", "A client can't interpret it."),
    Rule(
        "extra-event",
        "An event without `type` that MLflow or Databricks adds: a trace id, a trace.",
        "Other clients ignore it.",
        N,
    ),
)

ITEMS = (
    Rule(
        "item-not-added",
        "`response.output_item.added` is the first event of an item.",
        "openai's reader looks the item up by its index, and fails.",
        E,
        W,
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
        W,
    ),
    Rule("item-done-twice", "An item is done once.", "A client shows it twice."),
    Rule(
        "event-outside-item",
        "Events with an `item_id` are sent while that item is open.",
        "A client can't assign them: text is lost or ends up in another answer.",
    ),
    Rule("item-id-missing", "An item has an `id`.", "Its events can't be matched to it.", E, W),
    Rule(
        "item-id-changed", "An item's `id` is the same from added to done.", "A client shows two items instead of one."
    ),
    Rule("item-id-reused", "No two items share an `id`.", "A client that keys items by id loses one of them.", E, W),
    Rule(
        "item-changed",
        "The done item repeats the fields of the added item (type, name, call_id …).",
        "A client has already shown them.",
    ),
    Rule("item-status", "A done item's `status` is not `in_progress`.", "A client shows it as still running."),
    Rule("output-index-missing", "Events of items have an `output_index`.", "openai's reader finds items by it.", E, W),
    Rule(
        "output-index",
        "`output_index` is 0, 1, 2 … in the order of the added items, and doesn't change.",
        "openai's reader uses it as the index in its list.",
    ),
    Rule(
        "unknown-item",
        "An item of a type that the installed `openai` package doesn't have.",
        "The package passes it on untyped.",
        N,
    ),
)

TEXTS = (
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
        E,
        W,
    ),
    Rule("text-done-missing", "Deltas end with their `.done`.", "A client can't tell that the text is complete.", E, W),
    Rule("delta-after-done", "No delta or second `.done` follows a `.done`.", "The text was already complete."),
    Rule(
        "part-not-added",
        "`content_part.added` (for a summary `reasoning_summary_part.added`) precedes its text.",
        "openai's reader looks the part up by its index, and fails.",
        E,
        W,
    ),
    Rule("part-not-done", "Every added part is done, before its item.", "A client shows it as unfinished.", E, W),
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
        E,
        W,
    ),
)

CALLS = (
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
    Rule("arguments-json", "A call's `arguments` are a JSON object.", "A client parses them.", W),
)

END = (
    Rule(
        "terminal-output",
        "The terminal response's `output` contains the done items, in order; it may leave out `incomplete` messages.",
        "Clients of the stream and of the terminal response get different answers.",
    ),
    Rule("usage-missing", "A completed response has `usage`.", "The cost is unknown.", W),
    Rule(
        "usage-adds-up",
        "`total_tokens` is the sum of input and output tokens; details don't exceed their total.",
        "Billing depends on it.",
    ),
    Rule(
        "incomplete-reason",
        "`response.incomplete` has a reason in `incomplete_details.reason`.",
        "A client can't show the reason to the user.",
        W,
    ),
    Rule(
        "own-reason",
        "`incomplete_details.reason` is not one of OpenAI's values.",
        "OpenAI has no value for a deadline or a server shutdown; its client passes it on.",
        N,
    ),
    Rule(
        "own-code",
        "The `error.code` of `response.failed` is not one of OpenAI's values.",
        "OpenAI has no value for an agent's errors; its client passes it on.",
        N,
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
        W,
        open_responses=N,
    ),
    Rule(
        "unknown-event",
        "An event of a type that the installed `openai` package doesn't have.",
        "The package passes it on untyped.",
        N,
    ),
)
