"""Send requests to an endpoint over HTTP, and read its answers and event streams."""

from __future__ import annotations

import codecs
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from oneturn.conformance.rules import Contract
from oneturn.errors import EndpointError

_END = "[DONE]"


@dataclass(frozen=True)
class Stream:
    """The contents of a body of server-sent events.

    Attributes:
        events: the JSON objects, in order.
        names: the ``event:`` line of each of them; empty where there is none.
        unreadable: the data of events that are not JSON objects.
        ended: whether ``[DONE]`` was the last event.
    """

    events: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    ended: bool = False


def read_stream(body: bytes) -> Stream:
    """Read the events in ``body``. A truncated event, without the empty line after it, is left out."""
    # not str.splitlines or httpx's iter_lines: both also split at characters that JSON texts may contain
    lines = body.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: list[Mapping[str, Any]] = []
    unreadable: list[str] = []
    ended = False
    names: list[str] = []
    data: list[bytes] = []
    name = ""
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"event:"):
            name = line[6:].decode(errors="replace").strip()
        elif not line:
            if payload := b"\n".join(data):  # without data, it is no event
                value = read_json(payload)
                ended = payload.strip() == _END.encode()
                if isinstance(value, dict):
                    events.append(value)
                    names.append(name)
                elif not ended:
                    unreadable.append(payload.decode(errors="replace"))
            name, data = "", []
    return Stream(tuple(events), tuple(names), tuple(unreadable), ended)


def read_json(body: bytes) -> Any:
    """Parse ``body`` as JSON; return ``None`` if it isn't JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


MAX_BYTES = 64_000_000
"""The largest answer that is read, in bytes."""

_CONNECT_SECONDS = 10.0
_CONNECTIONS = 128
_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer.

    Attributes:
        status: its HTTP status; 0 if there was no answer.
        content_type: the content type, in lower case.
        body: the bytes received, also if the answer is incomplete.
        broken: why it is incomplete; empty if it is complete.
        late: whether it exceeded the timeout.
        unreachable: whether the connection was refused.
    """

    status: int
    content_type: str = ""
    body: bytes = b""
    broken: str = ""
    late: bool = False
    unreachable: bool = False

    @property
    def json(self) -> Any:
        """The body as JSON; ``None`` if it isn't JSON."""
        return read_json(self.body)

    @property
    def stream(self) -> Stream:
        """The body as a stream of events."""
        return read_stream(self.body)

    @property
    def is_stream(self) -> bool:
        """Whether this is a successful answer of server-sent events."""
        return self.status == 200 and self.content_type.startswith(_EVENT_STREAM)


@dataclass
class Endpoint:
    """A client of one endpoint. Use it in a ``with`` block. It is thread-safe.

    Args:
        url: ``http://host:port``, with or without a path that ends in ``/responses`` or ``/invocations``; or
            ``https://<workspace>/serving-endpoints/<name>`` on Databricks.
        key: the bearer token to send.
        extra: fields of each request besides its input.
        timeout: the longest that one answer may take, in seconds.
        contract: the contract, which completes the URL; by default the one of its path.

    Raises:
        EndpointError: ``url`` is not an HTTP URL.
    """

    url: str
    key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 120.0
    contract: Contract | None = None

    def __post_init__(self) -> None:
        self._address = address(self.url, self.contract)
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
        """The URL that requests are sent to."""
        return self._address

    @property
    def checked_contract(self) -> Contract:
        """The contract to check: the chosen one, or Open Responses at ``/v1/responses`` and MLflow's elsewhere."""
        return self.contract or ("openresponses" if self._address.endswith("/v1/responses") else "mlflow")

    def body(self, question: str, **more: Any) -> dict[str, Any]:
        """Build the request body that asks ``question``, with the fields ``more``."""
        return {**self.extra, "input": [{"role": "user", "content": question}], **more}

    def ask(self, body: Any) -> Answer:
        """Send ``body`` (bytes unchanged, anything else as JSON), and read the complete answer."""
        with self._send(body) as response:
            return response if isinstance(response, Answer) else self._read(response)

    def disconnect(self, body: Any) -> int:
        """Send ``body``, read the first bytes of the answer and disconnect. Return the HTTP status, 0 if none."""
        with self._send(body) as response:
            if isinstance(response, Answer):
                return response.status
            with contextlib.suppress(httpx.HTTPError, StopIteration):
                next(response.iter_raw())
            return response.status_code

    def healthy(self) -> bool | None:
        """Whether ``GET /health`` next to the address returns 200; ``None`` if there is no answer."""
        base = self._address.rpartition("/")[0]
        try:
            return self._client.get(f"{base}/health").status_code == 200
        except httpx.HTTPError:
            return None

    def missing_inputs(self) -> list[str]:
        """The inputs that the server's ``/agent/info`` requires, and that neither a question nor ``extra`` gives.

        Empty if there is no such page.
        """
        base = self._address.rpartition("/")[0].removesuffix("/v1")
        try:
            info = read_json(self._client.get(f"{base}/agent/info").content)
        except httpx.HTTPError:
            return []
        inputs, message, given = _object(info, "inputs"), _object(info, "message"), _object(self.extra, "custom_inputs")
        required = inputs.get("required")
        asked = (message.get("question"), message.get("history"))
        names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        return [name for name in names if name not in asked and name not in given] if message else []

    @contextlib.contextmanager
    def _send(self, body: Any) -> Iterator[httpx.Response | Answer]:
        content: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"content-type": "application/json"}
        with contextlib.ExitStack() as stack:
            try:
                request = self._client.stream("POST", self._address, headers=headers, **content)
                response: httpx.Response | Answer = stack.enter_context(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                response = Answer(0, broken=f"connection refused ({error})", unreachable=True)
            except httpx.TimeoutException:
                response = Answer(0, broken=f"no answer within {self.timeout:g} s", late=True)
            except httpx.HTTPError as error:
                response = Answer(0, broken=f"the connection broke ({type(error).__name__})")
            yield response

    def _read(self, response: httpx.Response) -> Answer:
        deadline = time.monotonic() + self.timeout
        body, broken, late = bytearray(), "", False
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    broken = f"more than {MAX_BYTES} bytes"
                    break
                if time.monotonic() > deadline:
                    broken, late = f"not finished within {self.timeout:g} s", True
                    break
        except httpx.TimeoutException:
            broken, late = f"no data for {self.timeout:g} s", True
        except httpx.HTTPError as error:
            broken = f"the connection broke ({type(error).__name__})"
        return Answer(response.status_code, response.headers.get("content-type", "").lower(), bytes(body), broken, late)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """The object in a field of a JSON object; empty without one."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def address(url: str, contract: Contract | None = None) -> str:
    """Return the URL that requests to the endpoint at ``url`` are posted to.

    Without a path of its own, that of ``contract``: ``/v1/responses`` for Open Responses, else ``/responses``.

    Raises:
        EndpointError: ``url`` is not an HTTP URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise EndpointError(f"{url!r} is not an endpoint URL; pass one such as http://127.0.0.1:8000.", "bad_url")
    path = parts.path.rstrip("/")
    if not path.endswith(("/responses", "/invocations")):
        on_databricks = path.rpartition("/")[0].endswith("/serving-endpoints")
        standard = "/v1/responses" if contract == "openresponses" and not path else "/responses"
        path += "/invocations" if on_databricks else standard
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
