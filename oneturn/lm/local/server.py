"""llama.cpp's own HTTP server, inside this process, on a loopback port.

Each process has one server for each (weights, settings), started on first use and stopped at exit. It listens on
127.0.0.1 only and requires a random key, so no other user of the machine, and no web page, can use it. A child process
uses its parent's servers if the parent passes their addresses on; see ``server_variables``.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import threading
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from oneturn.errors import LocalLMError
from oneturn.lm.local.weights import cache_folder, ensure_folder, fetch_weights, weights_for

# At verbosity 0, llama.cpp reports errors only; its default (3) prints some 200 lines at each start.
_ERRORS_ONLY = 0
# Memory for prompts that are no longer in a slot. llama.cpp's default, 8192, is more than the model takes.
_PROMPT_CACHE_MIB = 512
# The servers of the parent process that a child process may use: JSON, from a server's description to [URL, API key].
_PARENT_SERVERS = "ONETURN_LOCAL_SERVERS"


@dataclass(frozen=True)
class ServerSettings:
    """Concurrency, context size and mode of the server.

    Args:
        slots: number of requests processed concurrently; further requests wait in the server's queue.
        context: maximum tokens of a slot, prompt and answer together.
        threads: number of cores to use; ``None`` for all that are available to this process.
        embedding: return embeddings instead of generated text.
    """

    slots: int = 2
    context: int = 8192
    threads: int | None = None
    embedding: bool = False

    def __post_init__(self) -> None:
        for name in ("slots", "context", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LocalLMError(f"The embedded LM's {name} must be 1 or more, not {value}.")


@dataclass(frozen=True)
class RunningServer:
    """A started server: its URL (``http://127.0.0.1:<port>``) and the API key it requires."""

    url: str
    key: str


_lock = threading.Lock()
_running: dict[tuple[Path, ServerSettings], tuple[RunningServer, Any]] = {}


def running_server(weights: Path, settings: ServerSettings) -> RunningServer:
    """Return this process's server for ``weights``, or its parent's; start it (1 to 6 s) if neither runs.

    Raises:
        LocalLMError: xllamacpp isn't installed, or llama.cpp rejects the file or the settings.
    """
    key = (weights.resolve(), settings)
    with _lock:
        if key not in _running:
            _running[key] = _parent_server(*key) or _start(*key)
        return _running[key][0]


def server_variables() -> dict[str, str]:
    """Return environment variables with which a child process uses this process's servers instead of its own.

    They contain the servers' API keys. Without them the child would load the weights again (1.5B: 2.4 GB), process the
    prompt again, and compete with this process for the cores.
    """
    with _lock:
        servers = {_description(*key): [server.url, server.key] for key, (server, _) in _running.items()}
    return {_PARENT_SERVERS: json.dumps(servers)} if servers else {}


def _parent_server(weights: Path, settings: ServerSettings) -> tuple[RunningServer, None] | None:
    """Return the parent process's server with these weights and settings, if it still answers."""
    servers = json.loads(os.environ.get(_PARENT_SERVERS, "{}"))
    if (address := servers.get(_description(weights, settings))) is None:
        return None
    server = RunningServer(*address)
    try:
        httpx.get(f"{server.url}/health", trust_env=False).raise_for_status()
    except httpx.HTTPError:
        return None
    return server, None


def _description(weights: Path, settings: ServerSettings) -> str:
    return json.dumps([str(weights), asdict(settings)])


def _start(weights: Path, settings: ServerSettings) -> tuple[RunningServer, Any]:
    llama = _import_xllamacpp()
    api_key = secrets.token_hex(16)
    try:
        server = llama.Server(_params(llama, weights, settings, api_key))
    except (RuntimeError, ValueError) as error:
        raise LocalLMError(f"llama.cpp can't start with {weights} and {settings}: {error}") from error
    running = RunningServer(url=server.listening_address, key=api_key)
    _wait_for_queue(running)
    return running, server


def _wait_for_queue(server: RunningServer) -> None:
    """Wait until the task queue runs: stopped before that, llama.cpp's thread would never end, nor the process.

    ``/slots`` is answered by the queue, ``/health`` isn't.
    """
    headers = {"Authorization": f"Bearer {server.key}"}
    httpx.get(f"{server.url}/slots", headers=headers, trust_env=False, timeout=60).raise_for_status()


def _params(llama: Any, weights: Path, settings: ServerSettings, api_key: str) -> Any:
    params = llama.CommonParams()
    params.model.path = str(weights)
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the system picks a free port
    params.api_keys = [api_key]
    params.ui = False
    params.endpoint_slots = True
    params.slot_save_path = f"{ensure_folder(cache_folder() / 'prompts')}{os.sep}"
    params.verbosity = _ERRORS_ONLY
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context  # llama.cpp divides it among the slots
    if settings.embedding:
        params.embedding = True
        params.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cache_prompt = True
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.sse_ping_interval = 1  # seconds; how often an open stream checks whether the server is stopping
    threads = settings.threads or _available_cores()
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return params


def _available_cores() -> int:
    """Return the number of cores available to this process; in a container, fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_extra() -> None:
    """Check that the packages of the embedded LM are installed, before its weights are downloaded.

    Raises:
        LocalLMError: the extra ``local`` isn't installed.
    """
    missing = [name for name in ("xllamacpp", "platformdirs") if find_spec(name) is None]
    if missing:
        raise LocalLMError(
            f'The embedded LM needs {", ".join(missing)}: pip install "oneturn[local]". Or name another LM in lm.model.'
        )


def _import_xllamacpp() -> Any:
    # OpenMP's threads spin while they wait for each other. With another busy process on the machine, that makes
    # generation ten times slower. libgomp reads the variable once, when the package is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        import xllamacpp
    except ImportError as error:
        raise LocalLMError(f'xllamacpp can\'t be loaded: {error}. Run: pip install "oneturn[local]"') from error
    return xllamacpp


@atexit.register
def _stop_all() -> None:
    """Stop the servers before the interpreter shuts down: their threads call into it."""
    _running.clear()


_EMBEDDING_SETTINGS = ServerSettings(slots=1, context=2048, embedding=True)


def embedding_server(size: str) -> RunningServer:
    """Return this process's embedding server with the weights of ``size``; download them and start it if necessary.

    An embedding is the mean over the text's tokens. The model is trained for generation, not for embeddings: see
    docs/retrieval.md.

    Raises:
        WeightsError: ``size`` is unknown, or its weights can't be downloaded.
        LocalLMError: the extra ``local`` isn't installed, or llama.cpp doesn't start.
    """
    require_extra()
    return running_server(fetch_weights(weights_for(size).size), _EMBEDDING_SETTINGS)
