"""Evaluation reports: a self-contained HTML file, and artifacts of an MLflow run."""

from oneturn.evaluation.report.html import write_report
from oneturn.evaluation.report.mlflow import log_report

__all__ = ["log_report", "write_report"]
