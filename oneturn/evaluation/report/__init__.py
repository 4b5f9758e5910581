"""Evaluation reports: a self-contained HTML file, a frame in a notebook, and artifacts of an MLflow run."""

from oneturn.evaluation.report.html import write_report
from oneturn.evaluation.report.inline import InlineReport, show_report
from oneturn.evaluation.report.mlflow import log_report

__all__ = ["InlineReport", "log_report", "show_report", "write_report"]
