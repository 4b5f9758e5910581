"""Measure the cost of serving an agent, compared with bare ``dspy.ReAct`` and a naive adapter."""

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no price list is downloaded, in child processes either
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
