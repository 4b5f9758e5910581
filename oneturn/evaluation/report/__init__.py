"""What an evaluation found, as one HTML file that needs nothing else."""

from oneturn.evaluation.report.html import write_report
from oneturn.evaluation.report.mlflow import log_report

__all__ = ["log_report", "write_report"]
