"""The text of a reply without reasoning and without the tokens of the LM's chat template."""

from __future__ import annotations

import re

_THINKING = re.compile(
    r"[\s\ufeff\u200b]*(?:<(?P<tag>think|thinking|thought|reasoning)>.*?(?:</(?P=tag)>|\Z)"
    r"|\[THINK\].*?(?:\[/THINK\]|\Z)"
    r"|<\|channel>thought\b.*?(?:<channel\|>|\Z)"
    r"|◁think▷.*?(?:◁/think▷|\Z))",
    re.DOTALL | re.IGNORECASE,
)
_THINKING_END = "</think>"
_HARMONY = "<|channel|>"
_FINAL = re.compile(r"<\|channel\|>final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", re.DOTALL)
_ANALYSIS = re.compile(r"<\|channel\|>analysis\b[^<]*<\|message\|>.*?(?:<\|end\|>|\Z)", re.DOTALL)
_TO_TOOL = re.compile(r"\bto=[\w.]+")
# Where a call or a token of the chat template begins, or may begin at the end of the text.
_CALL = re.compile(
    r"\{|```|<[|｜]|<(?:tool_call|function|antml:|invoke|think|s>|end_of)|</|\[TOOL_CALLS\]|\[THINK\]|\[\[ ##|◁"
    r"|^\[|\b(?:Action|Thought):|^\w+\(|[<\[`][\w:/\[ #]{0,12}$"
)
_END_TOKENS = re.compile(
    r"(?:\s*(?:<\|(?:return|end|call|eot_id|eom_id|im_end|endoftext|end_of_text)\|>|</s>|<end_of_turn>|<｜end▁of▁sentence｜>))+\s*\Z"
)


def without_thinking(text: str) -> str:
    """Return the reply without the reasoning before it; empty while the reasoning is being written.

    The reasoning stands between tags, such as ``<think>``, or in the analysis channel of gpt-oss.
    """
    if _HARMONY in text:
        text = _ANALYSIS.sub("", text)
        final = _FINAL.search(text)
        return text[final.end() :] if final and not _TO_TOOL.search(text, 0, final.start()) else text
    while match := _THINKING.match(text):
        text = text[match.end() :]
    head, end, tail = text.partition(_THINKING_END)
    if end and not head.lstrip().startswith(("{", "[", "`")):  # some chat templates write the opening tag themselves
        return tail
    return text


def visible_text(text: str) -> str:
    """Return what the LM wrote for the reader: no reasoning and no tokens that end a message."""
    return _END_TOKENS.sub("", without_thinking(text)).strip()


class PlainAnswer:
    """Reads an answer of plain text while it is written, up to where a call may begin.

    Attributes:
        emitted: the part of the answer that has been read.
    """

    def __init__(self) -> None:
        self.emitted = ""

    def read(self, reply: str, held: int) -> str:
        """Return the new text of the answer in ``reply``, the reply so far; empty below ``held`` characters."""
        text = without_thinking(reply).lstrip(" \n\t\r\ufeff\u200b")
        call = _CALL.search(text)
        safe = text[: call.start() if call else len(text)].rstrip()
        if len(safe) < held or not safe.startswith(self.emitted):
            return ""
        new = safe[len(self.emitted) :]
        self.emitted = safe
        return new
