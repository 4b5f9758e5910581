"""The same evaluation on a cluster: a Spark table in, a Spark table out, a row a row."""

from oneturn.spark.resume import evaluate_into
from oneturn.spark.table import evaluate_table

__all__ = ["evaluate_into", "evaluate_table"]
