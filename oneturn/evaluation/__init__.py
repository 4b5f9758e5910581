"""Evaluation of a program, an endpoint or a logged model on any number of rows: resumable, in order, one row a row."""

from oneturn.evaluation.data_sources import to_agent_evaluation
from oneturn.evaluation.runner import evaluate

__all__ = ["evaluate", "to_agent_evaluation"]
