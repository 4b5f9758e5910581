"""The report in MLflow: page, summary and rows as artifacts of a run."""
