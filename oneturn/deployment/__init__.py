"""Log an agent, promote its versions, and deploy them."""

from oneturn.deployment.model_logging import log_model
from oneturn.deployment.promotion import promote
from oneturn.deployment.resources import resources_of

__all__ = [
    "log_model",
    "promote",
    "resources_of",
]
