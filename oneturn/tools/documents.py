"""``SourcedText``: a tool result with a text for the LM and documents to cite."""

from __future__ import annotations

from collections.abc import Iterable

from mlflow.entities import Document


class SourcedText(str):
    """A tool's text with its source documents, which the agent can cite by id.

    It is a ``str``, so callers of the tool read the text. The text must contain the ids for the LM to cite them.

        def summarise(topic: str) -> oneturn.SourcedText:
            documents = retriever.search(topic)
            ids = ", ".join(document.id for document in documents)
            return oneturn.SourcedText(f"{summary_of(documents)} Sources: {ids}", documents)

    Args:
        text: the text for the LM.
        documents: the sources; one without an ``id`` can't be cited.
    """

    documents: tuple[Document, ...]

    def __new__(cls, text: str, documents: Iterable[Document] = ()) -> SourcedText:
        instance = super().__new__(cls, text)
        instance.documents = tuple(documents)
        return instance
