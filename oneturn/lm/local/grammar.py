"""The grammar of a reply that begins with free text and ends in JSON.

A JSON schema can't express it. llama.cpp takes a grammar in llguidance's dialect of Lark, in which a rule can be
limited to a number of tokens, so the text and the JSON are one reply to one request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from dspy.lm15 import Request

from oneturn.lm.free_text import BEFORE_JSON, split_free_text

# The text begins with a letter, and may end anywhere at its limit. The JSON is the first line that begins with a brace.
# A brace inside a line, as in LaTeX, is text unless a quote or a space follows.
_GRAMMAR = """\
%llguidance {{}}
start: text json
text[max_tokens={tokens}]: TEXT
TEXT: /[A-Za-z]{inside}(\\n([^{{\\n]{inside})?)*/{until}
json: %json {schema}
"""
# A text without its answer doesn't begin with "Answer:", so that there is one, and ends at "Answer:" and at most four
# spaces, line breaks, asterisks or underscores. In one with its answer, only line breaks follow the line of the answer,
# which may begin below "Answer:".
_UNTIL_ANSWER = rf" & ~/{BEFORE_JSON}(.|\n)*/ & ~/(.|\n)*{BEFORE_JSON}([*_ \n]*[^*_ \n]|[*_ \n]{{5}})(.|\n)*/"
_WITH_ANSWER = rf" & ~/(.|\n)*{BEFORE_JSON}[*_ \n]*[^*_ \n][^\n]*\n+[^\n](.|\n)*/"
_INSIDE = r"""([^{\n]|\{+[^"'\s{])*"""
_JSON = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}


def with_grammar(request: Request) -> Request:
    """Return the request with a grammar in place of a schema that asks for free text; any other request unchanged."""
    schema = (request.config.response_format or {}).get("schema")
    if not isinstance(schema, Mapping):
        return request
    json_schema, text = split_free_text(schema)
    if text is None:
        return request
    schema_text = json.dumps({**_JSON, **json_schema})
    until = _WITH_ANSWER if text.with_answer else _UNTIL_ANSWER
    grammar = _GRAMMAR.format(tokens=text.max_tokens, inside=_INSIDE, until=until, schema=schema_text)
    extensions = {**(request.config.extensions or {}), "grammar": grammar}
    return replace(request, config=replace(request.config, response_format=None, extensions=extensions))
