"""Who asks: the token of the user on whose behalf a request is answered, where the platform hands it over.

Databricks Apps forward it as a header (``x-forwarded-access-token``); Model Serving lays it on the main thread,
whichever request is being answered. So it is taken when a request begins, and stays the request's.
"""

from __future__ import annotations

import sys
import threading

from oneturn.control import current

_HEADER = "x-forwarded-access-token"
_SERVER = "mlflow.genai.agent_server.utils"


def caller_token() -> str:
    """The token of whoever asks the request that is being answered; empty where nobody's is handed over.

    A run keeps the one that it began with, and so do the runs inside it: by now, the platform may hand over another's.
    """
    kept = current().caller
    return _handed_over() if kept is None else kept


def _handed_over() -> str:
    server = sys.modules.get(_SERVER)  # who serves by MLflow's server has imported it
    forwarded = server.get_request_headers().get(_HEADER) if server is not None else None
    return forwarded or threading.main_thread().__dict__.get("invokers_token") or ""
