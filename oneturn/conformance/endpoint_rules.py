"""The rules of endpoints over HTTP, and those of the Open Responses specification and its acceptance suite."""

from oneturn.conformance.rule import E, N, Rule, W

HTTP = (
    Rule(
        "http-status",
        "A valid request is answered with 200, an invalid one with 4xx; never with 5xx.",
        "Clients and gateways retry a 5xx, which runs the agent again.",
    ),
    Rule(
        "http-error-shape",
        'An HTTP error is OpenAI\'s object: `{"error": {"message", "type", "code"}}`.',
        "openai's client reads message and code from it.",
        W,
        open_responses=E,
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
        N,
    ),
    Rule(
        "string-input-refused",
        "A string as `input` is rejected; OpenAI accepts it, MLflow accepts lists only.",
        "Send a list of items.",
        N,
        open_responses=E,
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
        W,
    ),
    Rule(
        "refused-under-load",
        "All concurrent requests are answered.",
        "429 and 503 are valid answers, but those streams are not checked.",
        W,
    ),
)

OPEN_RESPONSES = (
    Rule(
        "resource-fields",
        "A response has every field that the specification requires, `null` where it has no value.",
        "Clients generated from the specification refuse a response that lacks one.",
    ),
    Rule(
        "resource-types",
        "Fields of a response have the specification's types; `created_at` is an integer.",
        "Clients generated from the specification refuse it.",
    ),
    Rule(
        "event-fields",
        "An event has the fields of its type, an `error` event a nested `error` object with `type` and `message`.",
        "Clients generated from the specification refuse it, and the stream with it.",
    ),
    Rule(
        "item-fields",
        "An item has the fields of its type, `id` and `status` among them.",
        "Clients generated from the specification refuse the response that contains it.",
    ),
    Rule(
        "own-tool-call",
        "A `function_call` names a tool of the request; the agent's own calls are `mcp_call` or an extension's items.",
        "A client takes each `function_call` for one that it has to run: it fails, or asks again and again.",
    ),
    Rule(
        "event-line",
        "Each event has an `event:` line that equals its `type`.",
        "Clients that read server-sent events by their name get none.",
    ),
    Rule("done-missing", "The stream ends with `data: [DONE]`.", "A client waits until the connection closes."),
    Rule(
        "suite-output",
        "A request of the acceptance suite is answered by a `completed` response with output items.",
        "The official suite fails.",
    ),
    Rule(
        "suite-tool-call",
        "A question that needs a tool of the request is answered by a `function_call`, streamed with its arguments.",
        "The official suite fails: the agent ignores the client's tools.",
    ),
    Rule(
        "suite-refused",
        "Pictures, files, client-side tools and `previous_response_id` are supported.",
        "The official suite counts a refusal as a failure; a client reads which field was refused.",
        W,
    ),
)
