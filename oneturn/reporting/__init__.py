"""What an evaluation found, as one HTML file that needs nothing else."""

from oneturn.reporting.mlflow_report import log_report
from oneturn.reporting.page import write_report

__all__ = ["log_report", "write_report"]
