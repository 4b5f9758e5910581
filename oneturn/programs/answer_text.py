"""The answering text as it was told so far, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oneturn.steps import AnswerDelta


@dataclass(frozen=True)
class AnswerPiece:
    """A piece of the answering field of one LM reply. Replies are numbered in the order in which they begin."""

    reply: int
    text: str


class AnswerText:
    """Numbers the attempts of an answer: each reply that writes it starts it over, the last one counts."""

    def __init__(self) -> None:
        self._attempt = 0
        self._reply = 0
        self._told: list[str] = []

    def add(self, piece: AnswerPiece) -> Iterator[AnswerDelta]:
        """Tell a piece; one of a reply that another has overtaken (in a parallel thread) is passed over."""
        if piece.reply < self._reply:
            return
        if piece.reply > self._reply:
            self._start_over()
            self._reply = piece.reply
        yield self._tell(piece.text)

    def finish(self, answer: str) -> Iterator[AnswerDelta]:
        """Tell what of the final ``answer`` hasn't been told: the rest, or all of it if something else was told."""
        told = "".join(self._told)
        if not answer.startswith(told):
            self._start_over()
            yield self._tell(answer)
        elif rest := answer[len(told) :]:
            yield self._tell(rest)

    def _start_over(self) -> None:
        self._attempt += bool(self._told)
        self._told = []

    def _tell(self, text: str) -> AnswerDelta:
        self._told.append(text)
        return AnswerDelta(text, self._attempt)
