"""Scorers: metrics of DSPy's signature for tools, retrieval and citations, LM judges, and both as MLflow's scorers."""

from oneturn.evaluation.run_record import RunRecord, run_record
from oneturn.evaluation.scorers.base import Scorer, Verdict, f1
from oneturn.evaluation.scorers.calibration import Calibration, calibrate_judge
from oneturn.evaluation.scorers.llm_judges import correctness, from_mlflow, groundedness, guidelines, judges, relevance
from oneturn.evaluation.scorers.mlflow import as_mlflow, predict_fn
from oneturn.evaluation.scorers.retrieval import (
    citation_format,
    citations,
    citations_read,
    retrieval_mrr,
    retrieval_precision,
    retrieval_recall,
)
from oneturn.evaluation.scorers.tools import forbidden_tools, tool_arguments, tool_order, tool_use

__all__ = [
    "Calibration",
    "RunRecord",
    "Scorer",
    "Verdict",
    "as_mlflow",
    "calibrate_judge",
    "citation_format",
    "citations",
    "citations_read",
    "correctness",
    "f1",
    "forbidden_tools",
    "from_mlflow",
    "groundedness",
    "guidelines",
    "judges",
    "predict_fn",
    "relevance",
    "retrieval_mrr",
    "retrieval_precision",
    "retrieval_recall",
    "run_record",
    "tool_arguments",
    "tool_order",
    "tool_use",
]
