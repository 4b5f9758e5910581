"""Ask a served agent through every client: ``python -m tests.clients``, or ``make test-clients``."""

from __future__ import annotations

import argparse
import logging
import os
import sys

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import mlflow

from tests.clients.clients import CLIENTS
from tests.clients.matrix import run_matrix


def main() -> None:
    """Print the table, every wrong cell, and how many cells were run; exit with 1 if a cell is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("clients", nargs="*", choices=[*CLIENTS, []], help="the clients to run; all of them if none")
    parser.add_argument("--write-table", action="store_true", help="write the table into docs/clients.md")
    arguments = parser.parse_args()
    mlflow.tracing.disable()
    logging.getLogger("oneturn").setLevel(logging.ERROR)  # failures of the LM, and refusals, are part of the matrix
    sys.exit(run_matrix(arguments.clients or list(CLIENTS), write=arguments.write_table))


if __name__ == "__main__":
    main()
