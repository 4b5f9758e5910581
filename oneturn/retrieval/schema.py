"""The schema of what is found, told to MLflow for whoever reads it from a logged model."""

from __future__ import annotations

import warnings

import mlflow

from oneturn.config import RetrieverConfig


def declare(config: RetrieverConfig) -> None:
    """Tell MLflow the schema of this retriever's documents.

    The function is deprecated in MLflow, since readers know the spans' default schema; older ones know only this.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        mlflow.models.set_retriever_schema(
            name=config.index or "retriever",
            primary_key="id",
            text_column="page_content",
            doc_uri="doc_uri",
            other_columns=["title", *(config.columns or ())],
        )
