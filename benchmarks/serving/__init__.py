"""What serving costs: an agent in process and served, beside bare ``dspy.ReAct`` and an adapter like the examples'."""

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no price list is fetched, here or by a child
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
