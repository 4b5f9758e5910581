"""What oneturn uses of DSPy's own HTTP clients: their connections, the messages they send, the replies they read.

Each name states what it relies on; ``tests/core/test_dspy_contract.py`` checks it, as for ``_dspy.py``.
"""

from __future__ import annotations

import contextvars
import socket
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from dspy._vendor.lm15 import transports
from dspy._vendor.lm15.providers import openai_chat
from dspy._vendor.lm15.transports import StdlibAsyncTransport, StdlibTransport, TransportError, TransportResponse
from dspy.clients import execution
from dspy.lm15 import AsyncOpenAIChatLM, OpenAIChatLM, Request


class _FinishReasons(dict[str, str]):
    """lm15's table of finish reasons, with a function for those that it doesn't have."""

    def __init__(self, table: Mapping[str, str], find: Callable[[str], str | None]):
        super().__init__(table)
        self._find = find

    def get(self, reason: str, default: Any = None) -> Any:
        return self[reason] if reason in self else self._find(reason) or default


def use_finish_reasons(find: Callable[[str], str | None]) -> None:
    """Make every chat completion have the finish reason that ``find`` gives for a name that lm15 doesn't know.

    lm15 takes an unknown name for ``stop``, and the raw name of a stream is lost when its usage follows.

    Relies on: ``openai_chat`` looks a name up with ``get`` in ``_FINISH_REASON_MAP``.
    """
    openai_chat._FINISH_REASON_MAP = _FinishReasons(dict(openai_chat._FINISH_REASON_MAP), find)


def use_error_bodies(convert: Callable[[int, str], str]) -> None:
    """Make the chat completions of every LM read the body of an error as ``convert`` returns it.

    Args:
        convert: returns the body in OpenAI's form, for a status and a body.

    Relies on: ``OpenAIChatLM`` reads the body of an error with ``normalize_error``; its asynchronous variant uses it.
    """
    read = OpenAIChatLM.normalize_error

    def normalize_error(self: OpenAIChatLM, status: int, body: str) -> Any:
        return read(self, status, convert(status, body))

    OpenAIChatLM.normalize_error = normalize_error


def parse_with(client: AsyncOpenAIChatLM, parser: type[OpenAIChatLM]) -> None:
    """Make an asynchronous client parse responses and errors as ``parser``, a synchronous client, does.

    Relies on: ``AsyncOpenAIChatLM`` parses with the synchronous client in ``_inner``, which it never lets send.
    """
    transport = client._inner.transport
    client._inner = parser(api_key=client.api_key, transport=transport, base_url=client.base_url, compat=client.compat)


class ChatClient(OpenAIChatLM):
    """A chat client whose subclasses may change the messages that it sends.

    Relies on: ``OpenAIChatLM`` builds the messages of each request with ``_build_messages``.
    """

    def change_messages(self, messages: list[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        """Return the messages to send for ``request``."""
        return messages

    def _build_messages(self, request: Request, *args: Any, **options: Any) -> list[dict[str, Any]]:
        return self.change_messages(super()._build_messages(request, *args, **options), request)


class RequestObserver:
    """Observes one request of an :class:`ObservedTransport`, in the thread that sends it."""

    def attach(self, connection: socket.socket) -> None:
        """Take note of the socket that the request is about to be sent on; may raise, so that it isn't."""

    def detach(self) -> None:
        """Forget the socket: the response was read or failed, and another request may be sent on it."""

    def check(self, error: Exception | None) -> None:
        """Called when the connection failed, with the error, and when the response was read; may raise instead."""


class ObservedTransport(StdlibTransport):
    """lm15's synchronous transport, with an observer for each request.

    Relies on: the transport calls ``_send_request`` with the connection of each request, new or reused, in the thread
    of ``stream``; a response reads its body from ``_chunks`` and gives its connection back with ``_release``.
    """

    def observer(self) -> RequestObserver:
        """Return the observer of a new request."""
        raise NotImplementedError

    def stream(self, request: Any) -> TransportResponse:
        """Send a request and return the response, whose body is read as it arrives."""
        observer = self.observer()
        token = _observer.set(observer)
        try:
            response = super().stream(request)
        except BaseException as error:
            observer.detach()
            if isinstance(error, TransportError):
                observer.check(error)
            raise
        finally:
            _observer.reset(token)
        release = response._release

        def detach_and_release(body_consumed: bool) -> None:
            observer.detach()
            release(body_consumed)

        response._chunks = self._checked(response._chunks, observer)
        response._release = detach_and_release
        return response

    def _send_request(self, conn: Any, *args: Any, **kwargs: Any) -> None:
        _observer.get().attach(conn.sock)
        super()._send_request(conn, *args, **kwargs)

    def _checked(self, chunks: Iterator[bytes], observer: RequestObserver) -> Iterator[bytes]:
        try:
            yield from chunks
        except TransportError as error:
            observer.check(error)
            raise
        observer.check(None)


_observer: contextvars.ContextVar[RequestObserver] = contextvars.ContextVar("oneturn_observer")


def use_for_all_lms(transport: type[StdlibTransport], sleep: Callable[[float], None]) -> None:
    """Make every ``dspy.LM`` of the process that has made no call yet connect with ``transport``.

    Args:
        transport: the class of the transport, a subclass of lm15's own.
        sleep: called with the seconds to wait before an LM call is repeated.

    Relies on: a router takes ``StdlibTransport`` from its package when it opens its first connection;
    ``execution`` uses ``time`` for its ``sleep`` between retries and for nothing else.
    """
    transports.StdlibTransport = transport
    execution.time = SimpleNamespace(sleep=sleep)


__all__ = [
    "ChatClient",
    "ObservedTransport",
    "RequestObserver",
    "StdlibAsyncTransport",
    "parse_with",
    "use_error_bodies",
    "use_finish_reasons",
    "use_for_all_lms",
]
