"""Query a served agent with the official ``openai`` client."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from oneturn.core.background import ConsumerGone
from oneturn.core.databricks_auth import bearer_token, is_app
from oneturn.core.run_context import current_run, shut_down
from oneturn.core.urls import with_scheme
from oneturn.errors import EndpointError
from oneturn.responses.reply import DONE, Event, OnEvent, Reply, ReplyReader

if TYPE_CHECKING:  # openai takes longer to import than the rest of oneturn, and a served agent doesn't need it
    import openai

_LOADING = threading.Lock()
_CONNECT_SECONDS = 10.0
_LINGER_SECONDS = 5.0
_RETURN_TRACE_ID = {"x-mlflow-return-trace-id": "true"}
_SERVING = "/serving-endpoints/"
_NO_KEY = "none"  # the client requires a key, our server ignores it


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
        EndpointError: the endpoint is unreachable, rejects the request, or fails. It has ``code`` and ``status``,
            ``retry_after`` if the endpoint sends it, and ``partial``, the reply received before the error.
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
            _read(reader, _events(client, address, items, body, connection), connection)
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
        import httpx  # noqa: F401
        import openai  # noqa: F401


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
    """The connection of a request: its socket, so that another thread can shut it down, and whether it was read whole.

    Both are known from the ``trace`` extension of httpx, and of httpx2, which openai 3 uses.

    Attributes:
        exhausted: whether the body was read to its end. The ``openai`` client stops reading at ``data: [DONE]``.
    """

    def __init__(self) -> None:
        self.exhausted = False
        self._socket: socket.socket | None = None
        self._shut_down = False

    def attach(self, request: Any) -> None:
        """Record the socket that ``request`` opens, and whether the body of its response is read to its end."""
        request.extensions["trace"] = self._trace

    def shut_down(self) -> None:
        """Shut the socket down; a blocked read returns end of file."""
        self._shut_down = True
        if self._socket is not None:
            shut_down(self._socket)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(".receive_response_body.complete"):
            self.exhausted = True
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


def _events(
    client: openai.OpenAI, address: _Address, items: list[Any], body: Mapping[str, Any], connection: _Connection
) -> Iterator[Event]:
    import httpx
    import openai

    options: dict[str, Any] = {"extra_body": body or None, "extra_headers": _RETURN_TRACE_ID}
    answered = False
    try:
        with client.responses.create(model=address.model, input=items, stream=True, **options) as stream:
            answered = True
            for event in stream:
                if event is None:  # "data: null"
                    continue
                if not hasattr(event, "to_dict"):
                    raise ValueError(f"an event is {event!r:.80}, not an object")
                yield event.to_dict(warnings=False)  # the server's events need not match OpenAI's own types
        if not connection.exhausted:
            yield DONE
    except openai.APIStatusError as error:
        raise _status_error(error, address) from error
    except (openai.APIConnectionError, httpx.HTTPError) as error:  # in a stream, openai 2 raises httpx's errors
        if answered:
            cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
            reason = f"The connection to {address.base_url} broke ({type(cause).__name__}). Retry."
            raise EndpointError(reason, code="stream_ended") from error
        if isinstance(error, openai.APITimeoutError):
            reason = f"{address.base_url} didn't answer in time. Retry, or raise the timeout."
            raise EndpointError(reason, code="timeout") from error
        advice = "Is the agent served there? Start it with: oneturn serve"
        raise EndpointError(f"Can't reach {address.base_url}. {advice}", code="unreachable") from error
    except openai.APIError as error:  # an error object in the stream, sent by MLflow's own server
        message = error.body if isinstance(error.body, str) else error.message
        raise EndpointError(message, code=str(error.code or "server_error")) from error
    except ValueError as error:  # the client parses each event as JSON
        raise EndpointError(f"{address.base_url} sent data that isn't a Responses event.", "bad_stream") from error


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
    status = error.status_code
    body = error.body if isinstance(error.body, Mapping) else {}  # the client has unwrapped {"error": …}
    code = str(body.get("code") or body.get("error_code") or f"http_{status}")
    message = str(body.get("message") or body.get("detail") or f"HTTP {status} {error.response.reason_phrase}")
    advice = _advice(status, address)
    text = f"{message.rstrip('.')}. {advice}" if advice else message
    return EndpointError(text, code, status, _retry_after(error.response.headers.get("retry-after")))


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, from a ``Retry-After`` header (RFC 9110, 10.2.3): a number or a date."""
    if header is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(header))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


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
