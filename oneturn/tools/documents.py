"""``SourcedText``: what a tool gives that has both a text for the LM and sources to cite."""

from __future__ import annotations

from collections.abc import Iterable

from mlflow.entities import Document


class SourcedText(str):
    """A tool's text with the documents that it rests on, which the agent can cite by their ids.

    It is a ``str``: whatever calls the tool reads the text. The LM learns the ids from the text, so name them there.

        def summarise(topic: str) -> oneturn.SourcedText:
            found = retriever.search(topic)
            return oneturn.SourcedText(summary_of(found) + " Sources: " + ", ".join(d.id for d in found), found)

    Args:
        text: what the LM reads.
        documents: the sources; one without an ``id`` can't be cited.
    """

    documents: tuple[Document, ...]

    def __new__(cls, text: str, documents: Iterable[Document] = ()) -> SourcedText:
        made = super().__new__(cls, text)
        made.documents = tuple(documents)
        return made
