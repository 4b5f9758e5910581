"""What an evaluation found, as one HTML file that needs nothing else."""

from oneturn.reporting.page import write_report

__all__ = ["write_report"]
