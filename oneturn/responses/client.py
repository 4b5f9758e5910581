"""Query a served agent with the official ``openai`` client."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from oneturn.core.background import ConsumerGone
from oneturn.core.databricks_auth import bearer_token, is_app
from oneturn.core.run_context import current_run, shut_down
from oneturn.core.urls import with_scheme
from oneturn.errors import EndpointError
from oneturn.responses.endpoint_errors import read_error
from oneturn.responses.event_stream import Event, decode_events
from oneturn.responses.reply import OnEvent, Reply, ReplyReader, response_events

if TYPE_CHECKING:  # openai takes longer to import than the rest of oneturn, and a served agent doesn't need it
    import openai

_LOADING = threading.Lock()
_CONNECT_SECONDS = 10.0
_LINGER_SECONDS = 5.0
_RETURN_TRACE_ID = {"x-mlflow-return-trace-id": "true"}
_SERVING = "/serving-endpoints/"
_NO_KEY = "none"  # the client requires a key, our server ignores it
_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class _Address:
    """The ``openai`` client's base URL and model."""

    base_url: str
    model: str = "agent"
    databricks: bool = False


def query(
    url: str,
    question: str | Sequence[Mapping[str, Any]] | None,
    *,
    custom_inputs: Mapping[str, Any] | None = None,
    context: Mapping[str, str] | None = None,
    api_key: str | None = None,
    on_event: OnEvent | None = None,
    timeout: float = 300.0,
) -> Reply:
    """Send one question to a served agent and read the streamed answer.

    A server that doesn't stream may answer with one response, in JSON.

    Requests are not retried: a retry would run the agent's tools again. If a tool makes the query and the tool's run is
    stopped, the connection is closed.

    Args:
        url: ``http://host:port`` or ``host:port``, with or without ``/responses`` or ``/invocations``; or
            ``https://<workspace>/serving-endpoints/<name>`` on Databricks.
        question: the question; or the items of a conversation, such as ``reply.answering(approve=True)``; or ``None``
            for an agent that takes ``custom_inputs`` only.
        custom_inputs: the program's other inputs.
        context: ``conversation_id`` and ``user_id``, which become the session and the user of the agent's trace.
        api_key: the token to send; ``None`` sends none. On Databricks, ``None`` uses ``DATABRICKS_TOKEN`` or, with the
            extra ``databricks``, the credentials of its SDK: a service principal's or a profile's, renewed as needed.
        on_event: called with each Responses event, a dict.
        timeout: seconds to wait for the next byte.

    Raises:
        EndpointError: the endpoint is unreachable, rejects the request, fails, or sends something else than an answer.
            It has ``code`` and ``status``, ``retry_after`` if the endpoint sends it, also inside a stream, and
            ``partial``, the reply received before the error.
        RunCancelled: the run that makes the query is stopped.
    """
    load_libraries()
    import openai

    address = _address(url)
    key = _key(address, api_key)
    run, connection = current_run(), _Connection()
    client = openai.OpenAI(
        base_url=address.base_url,
        api_key=key,
        max_retries=0,
        timeout=openai.Timeout(timeout, connect=_CONNECT_SECONDS),
        http_client=openai.DefaultHttpxClient(event_hooks={"request": [connection.attach]}),
    )
    items = input_items(question)
    extras = {"custom_inputs": custom_inputs, "context": context}
    body = {name: dict(values) for name, values in extras.items() if values}
    reader = ReplyReader(on_event, items)
    try:
        with client, run.waking(connection.shut_down):
            run.check()
            _read(reader, _events(client, address, items, body), connection)
            return reader.reply()
    except ConsumerGone:
        run.check()
        raise
    except EndpointError as error:
        if reader.ended:  # after the answer
            return reader.reply()
        run.check()  # the connection broke because the run was stopped
        reader.with_partial(error)
        if key != _NO_KEY:
            error.args = (str(error).replace(key, "…"),)  # a server may echo the key
        raise


def describe(url: str, *, api_key: str | None = None, timeout: float = 30.0) -> Mapping[str, Any]:
    """Return what a server says about its agent at ``/agent/info``; empty if it has no such page.

    Args:
        url: as for :func:`query`.
        api_key: as for :func:`query`.
        timeout: seconds to wait.

    Raises:
        EndpointError: the endpoint is unreachable or busy, or refuses the token.
    """
    import httpx

    address = _address(url)
    if address.databricks:
        return {}
    key = _key(address, api_key)
    headers = {} if key == _NO_KEY else {"authorization": f"Bearer {key}"}
    page = f"{address.base_url}/agent/info"
    try:
        response = httpx.get(page, headers=headers, timeout=timeout, follow_redirects=True)
    except httpx.HTTPError as error:
        advice = "Is the agent served there? Start it with: oneturn serve"
        raise EndpointError(f"Can't reach {address.base_url}. {advice}", code="unreachable") from error
    if response.status_code in (401, 403, 429, 503):
        reason = f"{page} answers with HTTP {response.status_code}. {_advice(response.status_code, address)}"
        raise EndpointError(reason, f"http_{response.status_code}", response.status_code)
    try:
        info = response.json() if response.is_success else {}
    except ValueError:
        return {}
    return info if isinstance(info, Mapping) else {}


def load_libraries() -> None:
    """Import what a query needs, in one thread at a time: threads that do it at once may see modules half imported."""
    with _LOADING:
        import openai.resources.responses  # noqa: F401


def _read(reader: ReplyReader, events: Iterator[Event], connection: _Connection) -> None:
    """Read the whole stream; after the answer, only until the server is silent for ``_LINGER_SECONDS``."""
    silence: threading.Timer | None = None
    try:
        for event in events:
            if silence is not None:
                silence.cancel()
            reader.read(event)
            if reader.ended:
                silence = threading.Timer(_LINGER_SECONDS, connection.shut_down)
                silence.start()
    finally:
        if silence is not None:
            silence.cancel()


class _Connection:
    """The socket of a request, so that another thread can shut it down.

    It is known from the ``trace`` extension of httpx, and of httpx2, which openai 3 uses.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._shut_down = False

    def attach(self, request: Any) -> None:
        """Record the socket that ``request`` opens."""
        request.extensions["trace"] = self._trace

    def shut_down(self) -> None:
        """Shut the socket down; a blocked read returns end of file."""
        self._shut_down = True
        if self._socket is not None:
            shut_down(self._socket)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        stream = info.get("return_value")
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")) and stream is not None:
            self._socket = stream.get_extra_info("socket")
            if self._shut_down:
                self.shut_down()


def input_items(question: str | Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Convert a question to the ``input`` of a request, a list of items."""
    if isinstance(question, str):
        return [{"role": "user", "content": question}]
    return list(question or ())


def _events(client: openai.OpenAI, address: _Address, items: list[Any], body: Mapping[str, Any]) -> Iterator[Event]:
    import openai

    options: dict[str, Any] = {"extra_body": body or None, "extra_headers": _RETURN_TRACE_ID}
    create = client.responses.with_streaming_response.create
    broken: tuple[type[Exception], ...] = (openai.APIConnectionError, *_transport_errors())
    answered = False
    try:
        with create(model=address.model, input=items, stream=True, **options) as response:
            answered = True
            yield from _decoded(response, address)
    except openai.APIStatusError as error:
        raise _status_error(error, address) from error
    except broken as error:
        if answered:
            reason = f"The connection to {address.base_url} broke ({type(error).__name__}). Retry."
            raise EndpointError(reason, code="stream_ended") from error
        if isinstance(error, openai.APITimeoutError):
            reason = f"{address.base_url} didn't answer in time. Retry, or raise the timeout."
            raise EndpointError(reason, code="timeout") from error
        advice = "Is the agent served there? Start it with: oneturn serve"
        raise EndpointError(f"Can't reach {address.base_url}. {advice}", code="unreachable") from error


def _decoded(response: openai.APIResponse[Any], address: _Address) -> Iterator[Event]:
    """The events in a body, which the ``openai`` client would read less strictly than the standard, or not at all.

    Some servers state another type than that of an event stream.
    """
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            yield from response_events(json.loads(response.read()))
            return
        is_stream = kind == _EVENT_STREAM
        for event in decode_events(response.iter_bytes()):
            is_stream = True
            yield event
    except (ValueError, RecursionError) as error:
        reason = f"{address.base_url} sent data that isn't a Responses event: {error}."
        raise EndpointError(reason, "bad_stream") from error
    if not is_stream:
        raise EndpointError(
            f"{response.url.host} answered with {kind or 'no content type'}, not with a Responses stream. Check that "
            f"{address.base_url} is the endpoint's URL, and the api_key, if this is a page to log in.",
            "bad_stream",
        )


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the reading of a body raises: errors of the socket, of httpx, and of httpx2, which openai 3 uses."""
    modules = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return (OSError, *(module.HTTPError for module in modules))


def _address(url: str) -> _Address:
    parts = urlsplit(with_scheme(url))
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise EndpointError(f"{url!r} isn't an endpoint URL; pass one such as http://127.0.0.1:8000.", "bad_url")
    path = parts.path.rstrip("/")
    for suffix in ("/responses", "/invocations"):
        path = path.removesuffix(suffix)
    prefix, serving, name = path.partition(_SERVING)
    if serving and name:
        base = urlunsplit((parts.scheme, parts.netloc, prefix + _SERVING.rstrip("/"), "", ""))
        return _Address(base, model=name, databricks=True)
    return _Address(urlunsplit((parts.scheme, parts.netloc, path, "", "")))


def _key(address: _Address, api_key: str | None) -> str:
    if api_key:
        return api_key
    if address.databricks or is_app(address.base_url):
        return bearer_token(address.base_url)
    return _NO_KEY


def _status_error(error: openai.APIStatusError, address: _Address) -> EndpointError:
    headers = error.response.headers
    is_json = "json" in headers.get("content-type", "")
    body = error.body if is_json else {}  # the client has unwrapped {"error": …}, and passes a page as a text
    read = read_error(body, error.status_code, headers)
    if advice := _advice(error.status_code, address):
        read.args = (f"{str(read).rstrip('.')}. {advice}",)
    return read


def _advice(status: int, address: _Address) -> str:
    if status in (401, 403):
        if address.databricks:
            return "Check the credentials: DATABRICKS_TOKEN, a service principal or profile, or api_key."
        return "Check the api_key."
    if status in (404, 405):
        return f"Check that {address.base_url} is the endpoint's URL."
    if status in (429, 503):
        return "The endpoint is busy or starting; retry later."
    return ""
