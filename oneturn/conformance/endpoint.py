"""An endpoint on the other side of HTTP: what it is asked, and what it answers, byte by byte."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from oneturn.errors import EndpointError

_END = "[DONE]"


@dataclass(frozen=True)
class Stream:
    """What a body of server-sent events holds.

    Attributes:
        events: the JSON objects, in order.
        unreadable: the data of events that are something else.
        ended: whether ``[DONE]`` was the last.
    """

    events: tuple[Mapping[str, Any], ...]
    unreadable: tuple[str, ...] = ()
    ended: bool = False


def read_stream(body: bytes) -> Stream:
    """The events in ``body``. An event that was cut off, without the empty line after it, doesn't count."""
    # not str.splitlines, nor httpx's lines: both also split at characters that JSON texts may hold
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: list[Mapping[str, Any]] = []
    unreadable: list[str] = []
    ended = False
    data: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            told, data = b"\n".join(data), []
            value = read_json(told)
            ended = told.strip() == _END.encode()
            if isinstance(value, dict):
                events.append(value)
            elif not ended:
                unreadable.append(told.decode(errors="replace"))
    return Stream(tuple(events), tuple(unreadable), ended)


def read_json(body: bytes) -> Any:
    """``body`` as JSON; ``None`` if it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


MOST_BYTES = 64_000_000
"""What is read of one answer at most."""

_CONNECT_SECONDS = 10.0
_CONNECTIONS = 128
_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Answer:
    """One answer over HTTP.

    Attributes:
        status: its HTTP status; 0 if none came.
        content_type: of the body, in lower case.
        body: as far as it came.
        broken: why it isn't whole; empty if it is.
        late: whether it took longer than the time given.
        unreachable: whether nobody listens there.
    """

    status: int
    content_type: str = ""
    body: bytes = b""
    broken: str = ""
    late: bool = False
    unreachable: bool = False

    @property
    def json(self) -> Any:
        """The body as JSON; ``None`` if it is none."""
        return read_json(self.body)

    @property
    def stream(self) -> Stream:
        """The body as a stream of events."""
        return read_stream(self.body)

    @property
    def is_stream(self) -> bool:
        """Whether this is an answer in server-sent events."""
        return self.status == 200 and self.content_type.startswith(_EVENT_STREAM)


@dataclass
class Endpoint:
    """Where to ask. Use it in a ``with`` block; it may be asked from several threads.

    Args:
        url: ``http://host:port``, with or without a path that ends in ``/responses`` or ``/invocations``; or
            ``https://<workspace>/serving-endpoints/<name>`` on Databricks.
        key: the bearer token to send.
        extra: what each request holds besides its input.
        timeout: seconds that one answer may take.

    Raises:
        EndpointError: ``url`` is no URL.
    """

    url: str
    key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 120.0

    def __post_init__(self) -> None:
        self._address = address(self.url)
        self._client = httpx.Client(
            headers={"authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(self.timeout, connect=min(_CONNECT_SECONDS, self.timeout)),
            limits=httpx.Limits(max_connections=_CONNECTIONS),
        )

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def address(self) -> str:
        """Where requests are sent."""
        return self._address

    def body(self, question: str, **more: Any) -> dict[str, Any]:
        """The request that asks ``question``."""
        return {**self.extra, "input": [{"role": "user", "content": question}], **more}

    def ask(self, body: Any) -> Answer:
        """Send ``body`` (bytes as they are, anything else as JSON), and read the whole answer."""
        with self._sent(body) as response:
            return response if isinstance(response, Answer) else self._read(response)

    def leave(self, body: Any) -> int:
        """Send ``body``, read the first bytes of its answer, and go away; gives the HTTP status, 0 if none came."""
        with self._sent(body) as response:
            if isinstance(response, Answer):
                return response.status
            with contextlib.suppress(httpx.HTTPError, StopIteration):
                next(response.iter_raw())
            return response.status_code

    def healthy(self) -> bool | None:
        """Whether ``GET /health`` next to the address answers 200; ``None`` if nothing answers there."""
        base = self._address.rpartition("/")[0]
        try:
            return self._client.get(f"{base}/health").status_code == 200
        except httpx.HTTPError:
            return None

    @contextlib.contextmanager
    def _sent(self, body: Any) -> Iterator[httpx.Response | Answer]:
        given: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"content-type": "application/json"}
        with contextlib.ExitStack() as opened:
            try:
                sent = self._client.stream("POST", self._address, headers=headers, **given)
                response: httpx.Response | Answer = opened.enter_context(sent)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                response = Answer(0, broken=f"nobody listens ({error})", unreachable=True)
            except httpx.TimeoutException:
                response = Answer(0, broken=f"no answer within {self.timeout:g} s", late=True)
            except httpx.HTTPError as error:
                response = Answer(0, broken=f"the connection broke ({type(error).__name__})")
            yield response

    def _read(self, response: httpx.Response) -> Answer:
        until = time.monotonic() + self.timeout
        body, broken, late = bytearray(), "", False
        try:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    broken = f"more than {MOST_BYTES} bytes"
                    break
                if time.monotonic() > until:
                    broken, late = f"not finished within {self.timeout:g} s", True
                    break
        except httpx.TimeoutException:
            broken, late = f"silent for {self.timeout:g} s", True
        except httpx.HTTPError as error:
            broken = f"the connection broke ({type(error).__name__})"
        return Answer(response.status_code, response.headers.get("content-type", "").lower(), bytes(body), broken, late)


def address(url: str) -> str:
    """Where requests to the endpoint at ``url`` are posted.

    Raises:
        EndpointError: ``url`` is no URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise EndpointError(f"{url!r} is no URL of an endpoint; give one such as http://127.0.0.1:8000.", "bad_url")
    path = parts.path.rstrip("/")
    if not path.endswith(("/responses", "/invocations")):
        on_databricks = path.rpartition("/")[0].endswith("/serving-endpoints")
        path += "/invocations" if on_databricks else "/responses"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
