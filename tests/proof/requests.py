"""Requests: what the Responses schema has, what MLflow refuses, and what no agent can answer."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

texts = st.text(max_size=6) | st.sampled_from(["How many?", "half \ud800", " "])
urls = st.sampled_from(["https://shelf.example/a.png", "data:image/png;base64,aGk=", "file:///etc/passwd", "", None])
parts = st.one_of(
    st.builds(lambda text: {"type": "input_text", "text": text}, texts),
    st.builds(lambda text: {"type": "output_text", "text": text, "annotations": []}, texts),
    st.builds(lambda text: {"type": "refusal", "refusal": text}, texts),
    st.builds(lambda url: {"type": "input_image", "image_url": url, "detail": "auto"}, urls),
    st.builds(lambda url: {"type": "input_file", "file_data": url, "filename": "a.pdf"}, urls),
    st.sampled_from([{"type": "input_audio"}, {}, {"type": "input_file"}, {"text": None}]),
)
contents = st.one_of(texts, texts, st.lists(parts, max_size=3), st.none())
roles = st.sampled_from(["user", "user", "assistant", "system", "developer", "tool", "nobody"])
messages = st.builds(lambda role, content: {"role": role, "content": content}, roles, contents)
call_ids = st.sampled_from(["call_1", "call_2"])
others = st.one_of(
    st.builds(lambda id: {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}, call_ids),
    st.builds(lambda id, text: {"type": "function_call_output", "call_id": id, "output": text}, call_ids, texts),
    st.builds(
        lambda text: {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": text}]}, texts
    ),
    st.builds(
        lambda yes: {"type": "mcp_approval_response", "id": "a", "approval_request_id": "m", "approve": yes},
        st.booleans(),
    ),
    st.just({"type": "mcp_approval_request", "id": "m", "name": "f", "arguments": "{", "server_label": "oneturn"}),
    st.sampled_from([{"type": "item_reference", "id": "x"}, {}, {"type": "reasoning"}, 3]),
)
items = st.lists(st.one_of(messages, messages, messages, others), max_size=5)
values = st.sampled_from(["plain", "kind", "angry", 3, "3", -1, None, True, [], {}, float("nan"), "half \ud800"])
custom_inputs = st.dictionaries(
    st.sampled_from(["tone", "limit", "question", "history", "photo", "unknown"]), values, max_size=2
)
good = st.just([{"role": "user", "content": "How many?"}])


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """The body of a request."""
    asked = items | st.builds(lambda before, last: [*before, *last], items, good) | good
    body: dict[str, Any] = {"input": draw(asked)}
    if draw(st.booleans()):
        body["custom_inputs"] = draw(st.none() | custom_inputs)
    if draw(st.integers(0, 9)) == 0:
        body |= draw(st.sampled_from([{"input": "How many?"}, {"input": None}, {"temperature": "hot"}, {"stream": 3}]))
    return body
