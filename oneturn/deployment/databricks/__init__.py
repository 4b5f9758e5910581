"""Deploy to Databricks Model Serving, Apps and bundles, and roll back.

Needs the extra: ``pip install "oneturn[databricks]"``.
"""

from oneturn.core.databricks_auth import bearer_token
from oneturn.deployment.databricks.inference_table import read_inference_table, redact_rows
from oneturn.deployment.databricks.model_serving import deploy_serving, plan_serving
from oneturn.deployment.databricks.rollback import plan_rollback, roll_back

__all__ = [
    "bearer_token",
    "deploy_serving",
    "plan_rollback",
    "plan_serving",
    "read_inference_table",
    "redact_rows",
    "roll_back",
]
