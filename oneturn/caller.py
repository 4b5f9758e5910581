"""Who asks: the token of the user on whose behalf a request is answered, where the platform hands it over.

Databricks Apps forward it as a header (``x-forwarded-access-token``); Model Serving lays it on the main thread,
whichever request is being answered. So it is taken when a request begins, and stays the request's.
"""

from __future__ import annotations

import sys
import threading

_HEADER = "x-forwarded-access-token"
_SERVER = "mlflow.genai.agent_server.utils"


def caller_token() -> str | None:
    """The token of whoever asks now; ``None`` where nobody's is handed over."""
    server = sys.modules.get(_SERVER)  # who serves by MLflow's server has imported it
    forwarded = server.get_request_headers().get(_HEADER) if server is not None else None
    return forwarded or threading.main_thread().__dict__.get("invokers_token")
