"""Datasets: load rows, check them, read splits and collect candidates from production traces."""

from oneturn.core.row_files import read_rows, write_rows
from oneturn.core.splits import SPLITS, split_files
from oneturn.datasets.check import check_data
from oneturn.datasets.rows import dataset_hash, interleave, load_rows, spread, to_examples

__all__ = [
    "SPLITS",
    "check_data",
    "dataset_hash",
    "interleave",
    "load_rows",
    "read_rows",
    "split_files",
    "spread",
    "to_examples",
    "write_rows",
]
