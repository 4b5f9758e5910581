"""HTTP requests through httpx that a cancelled run interrupts: those of LiteLLM, of OpenAI's client and of tools.

DSPy's own LM calls don't use httpx; ``oneturn.lm`` makes them interruptible in every process.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from oneturn.core.run_context import current_run
from oneturn.lm.transport import Interruption

_CORES = ("httpcore", "httpcore2")
"""The packages that open the connections of httpx and of httpx2."""


def interrupt_httpx() -> None:
    """Make every synchronous httpx client that is built from now on in this process interruptible.

    A request of a cancelled run ends with ``ConsumerGone``, and its connection is closed. Outside a run, nothing
    changes.

    Relies on: a connection pool without a ``network_backend`` takes ``SyncBackend`` of its module.
    """
    for name in _CORES:
        try:
            core = importlib.import_module(name)
            pools = importlib.import_module(f"{name}._sync.connection_pool")
        except ModuleNotFoundError:  # httpx2 comes with other packages only
            continue
        if pools.SyncBackend is core.SyncBackend:
            vars(pools)["SyncBackend"] = _interruptible_backend(core)


def _interruptible_backend(core: ModuleType) -> type:
    class Stream(core.NetworkStream):  # type: ignore[name-defined]
        def __init__(self, stream: Any):
            self._stream = stream

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            with _interruptible(self._stream):
                data: bytes = self._stream.read(max_bytes, timeout)
            return data

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            with _interruptible(self._stream):
                self._stream.write(buffer, timeout)

        def close(self) -> None:
            self._stream.close()

        def start_tls(self, *args: Any, **kwargs: Any) -> Stream:
            return Stream(self._stream.start_tls(*args, **kwargs))

        def get_extra_info(self, info: str) -> Any:
            return self._stream.get_extra_info(info)

    class Backend(core.SyncBackend):  # type: ignore[name-defined]
        def connect_tcp(self, *args: Any, **kwargs: Any) -> Stream:
            return Stream(super().connect_tcp(*args, **kwargs))

        def connect_unix_socket(self, *args: Any, **kwargs: Any) -> Stream:
            return Stream(super().connect_unix_socket(*args, **kwargs))

    return Backend


@contextmanager
def _interruptible(stream: Any) -> Iterator[None]:
    interruption = Interruption(current_run())
    try:
        interruption.attach(stream.get_extra_info("socket"))
        yield
    except Exception as error:
        interruption.check(error)
        raise
    finally:
        interruption.detach()
    interruption.check(None)
