"""Whatever an answer's pieces were, those of the last attempt make the final text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from oneturn.programs.stream_parsers import AnswerPiece, AnswerText

PIECES = st.lists(st.builds(AnswerPiece, st.integers(1, 3), st.sampled_from(["a", "b", "ab"])), max_size=8)


@settings(deadline=None)
@given(pieces=PIECES, final=st.sampled_from(["", "a", "ab", "aba", "bab"]))
def test_the_last_attempt_is_the_final_answer(pieces: list[AnswerPiece], final: str):
    text = AnswerText()
    deltas = [delta for piece in pieces for delta in text.add(piece)] + list(text.finish(final))
    attempts = [delta.attempt for delta in deltas]
    assert attempts == sorted(attempts)
    assert "".join(delta.text for delta in deltas if delta.attempt == max(attempts)) == final


def test_a_reply_that_another_has_overtaken_is_heard_no_more():
    text = AnswerText()
    pieces = [AnswerPiece(1, "old"), AnswerPiece(2, "new"), AnswerPiece(1, "er"), AnswerPiece(2, "er")]
    deltas = [(delta.text, delta.attempt) for piece in pieces for delta in text.add(piece)]
    assert deltas == [("old", 0), ("new", 1), ("er", 1)]
    assert list(text.finish("newer")) == []
