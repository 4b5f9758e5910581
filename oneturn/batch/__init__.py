"""Evaluation of a program, an endpoint or a logged model on any number of rows: resumable, in order, one row a row."""

from oneturn.batch.run import evaluate

__all__ = ["evaluate"]
