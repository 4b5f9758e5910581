"""The embedded model as one that embeds: a second server of llama.cpp in this process, made for nothing else."""

from __future__ import annotations

from oneturn.local.records import weights_for
from oneturn.local.server import RunningServer, ServerSettings, running_server
from oneturn.local.weights import fetch_weights

_SETTINGS = ServerSettings(slots=1, context=2048, embedding=True)


def embedding_server(size: str) -> RunningServer:
    """This process's server that embeds with the weights of ``size``; fetches them and starts it if need be.

    A vector is the mean over the text's tokens. The model was trained to write, not to embed: see docs/retrieval.md.

    Raises:
        WeightsError: ``size`` is unknown, or its weights can't be had.
        LocalLMError: llama.cpp doesn't start.
    """
    return running_server(fetch_weights(weights_for(size).size), _SETTINGS)
