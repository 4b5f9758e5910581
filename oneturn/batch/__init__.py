"""Evaluation of a program, an endpoint or a logged model on any number of rows: resumable, in order, one row a row."""

from oneturn.batch.agent_evaluation import to_agent_evaluation
from oneturn.batch.run import evaluate

__all__ = ["evaluate", "to_agent_evaluation"]
