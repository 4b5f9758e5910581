"""Evaluate a program, an agent or an endpoint on rows; compare evaluations."""

from oneturn.evaluation.approval import ApprovalPolicy, approve_all, approve_none
from oneturn.evaluation.comparison import compare
from oneturn.evaluation.data_sources import to_agent_evaluation
from oneturn.evaluation.error_limits import ErrorLimits, EvaluationStopped
from oneturn.evaluation.plots import category_plot, score_plot
from oneturn.evaluation.rescoring import rescore
from oneturn.evaluation.result import Evaluation, Metric
from oneturn.evaluation.runner import evaluate
from oneturn.evaluation.spark import evaluate_into, evaluate_table
from oneturn.evaluation.statistics import interval, interval_of_differences
from oneturn.evaluation.typed_fields import output_types

__all__ = [
    "ApprovalPolicy",
    "ErrorLimits",
    "Evaluation",
    "EvaluationStopped",
    "Metric",
    "approve_all",
    "approve_none",
    "category_plot",
    "compare",
    "evaluate",
    "evaluate_into",
    "evaluate_table",
    "interval",
    "interval_of_differences",
    "output_types",
    "rescore",
    "score_plot",
    "to_agent_evaluation",
]
