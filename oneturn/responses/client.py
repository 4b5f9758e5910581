"""Ask a served agent, through the official ``openai`` client."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import openai

from oneturn.core.run_context import current_run
from oneturn.errors import EndpointError
from oneturn.responses.reply import Event, OnEvent, Reply, read_reply

_CONNECT_SECONDS = 10.0
_SERVING = "/serving-endpoints/"
_NO_KEY = "none"  # the client insists on one, our server doesn't look


@dataclass(frozen=True)
class _Address:
    """Where to ask: the ``openai`` client's base URL and model."""

    base_url: str
    model: str = "agent"
    databricks: bool = False


def query(
    url: str,
    question: str | Sequence[Mapping[str, Any]] | None,
    *,
    custom_inputs: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    on_event: OnEvent | None = None,
    timeout: float = 300.0,
) -> Reply:
    """Ask a served agent one question and read its answer as it streams.

    Nothing is retried: a second try would run the agent's tools again. Asked by a tool, it ends with the run that
    called the tool: the connection is closed.

    Args:
        url: ``http://host:port``, with or without ``/responses`` or ``/invocations``; or
            ``https://<workspace>/serving-endpoints/<name>`` on Databricks.
        question: what to ask; the items of a conversation, such as ``reply.answering(approve=True)``; or ``None`` for
            an agent that takes ``custom_inputs`` only.
        custom_inputs: the program's other inputs.
        api_key: the token to send. ``None`` for none; on Databricks for ``DATABRICKS_TOKEN`` or, with the extra
            ``databricks``, the credentials that its SDK finds: a service principal's or a profile's, renewed as needed.
        on_event: told of each Responses event, a dict, as it comes.
        timeout: seconds to wait for the next byte.

    Raises:
        EndpointError: the endpoint can't be reached, refuses the request, or fails; ``code`` and ``status`` say how,
            ``retry_after`` when to try again, and ``partial`` what had come before.
        RunCancelled: the run that asks has to stop.
    """
    address = _address(url)
    key = _key(address, api_key)
    control, connection = current_run(), _Connection()
    client = openai.OpenAI(
        base_url=address.base_url,
        api_key=key,
        max_retries=0,
        timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
        http_client=openai.DefaultHttpxClient(event_hooks={"request": [connection.watch]}),
    )
    try:
        with client, control.waking(connection.break_off):
            control.check()
            items = input_items(question)
            return read_reply(_events(client, address, items, custom_inputs), on_event, items)
    except EndpointError as error:
        control.check()  # the run's end broke the connection
        if key != _NO_KEY:
            error.args = (str(error).replace(key, "…"),)  # a server may repeat what it was sent
        raise


class _Connection:
    """The socket of a request, so that another thread can break it off (httpx's ``trace`` extension shows it)."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._broken = False

    def watch(self, request: httpx.Request) -> None:
        """Look at the connection that ``request`` makes."""
        request.extensions["trace"] = self._trace

    def break_off(self) -> None:
        """End it: whoever reads from it finds its end."""
        self._broken = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        stream = info.get("return_value")
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")) and stream is not None:
            self._socket = stream.get_extra_info("socket")
            if self._broken:
                self.break_off()


def input_items(question: str | Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """A question as a request's ``input``, which is a list of items."""
    if isinstance(question, str):
        return [{"role": "user", "content": question}]
    return list(question or ())


def _events(
    client: openai.OpenAI, address: _Address, asked: list[Any], custom_inputs: Mapping[str, Any] | None
) -> Iterator[Event]:
    body = {"custom_inputs": dict(custom_inputs)} if custom_inputs else None
    try:
        with client.responses.create(model=address.model, input=asked, stream=True, extra_body=body) as stream:
            for event in stream:
                told = event.to_dict(warnings=False)  # what the server sends need not fit OpenAI's own types
                if told.get("type") == "response.completed" and _is_traced():
                    list(stream)
                yield told
    except openai.APIStatusError as error:
        raise _refused(error, address) from error
    except openai.APITimeoutError as error:
        raise EndpointError(
            f"{address.base_url} didn't answer in time. Ask again, or wait longer.", code="timeout"
        ) from error
    except openai.APIConnectionError as error:
        advice = "Is it served there? Start it with: oneturn serve"
        raise EndpointError(f"Can't reach {address.base_url}. {advice}", code="unreachable") from error
    except openai.APIError as error:  # an error object in the stream, as MLflow's own server sends it
        message = error.body if isinstance(error.body, str) else error.message
        raise EndpointError(message, code=str(error.code or "server_error")) from error
    except httpx.HTTPError as error:
        reason = f"The connection to {address.base_url} broke ({type(error).__name__}). Ask again."
        raise EndpointError(reason, code="stream_ended") from error
    except ValueError as error:  # the client parses each event as JSON
        raise EndpointError(f"{address.base_url} sent something that is no Responses event.", "bad_stream") from error


def _is_traced() -> bool:
    """Whether an MLflow span is open: if MLflow's OpenAI autolog has put one below it, that ends with the stream."""
    mlflow = sys.modules.get("mlflow")
    return mlflow is not None and mlflow.get_current_active_span() is not None


def _address(url: str) -> _Address:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise EndpointError(f"{url!r} is no URL of an endpoint; give one such as http://127.0.0.1:8000.", "bad_url")
    path = parts.path.rstrip("/")
    for ending in ("/responses", "/invocations"):
        path = path.removesuffix(ending)
    before, serving, name = path.partition(_SERVING)
    if serving and name:
        base = urlunsplit((parts.scheme, parts.netloc, before + _SERVING.rstrip("/"), "", ""))
        return _Address(base, model=name, databricks=True)
    return _Address(urlunsplit((parts.scheme, parts.netloc, path, "", "")))


def _key(address: _Address, api_key: str | None) -> str:
    if api_key:
        return api_key
    if address.databricks or _is_app(address.base_url):
        from oneturn.core.databricks_auth import bearer_token

        return bearer_token(address.base_url)
    return _NO_KEY


def _is_app(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(".databricksapps.com")


def _refused(error: openai.APIStatusError, address: _Address) -> EndpointError:
    status = error.status_code
    body = error.body if isinstance(error.body, Mapping) else {}  # the client has unwrapped {"error": …}
    code = str(body.get("code") or body.get("error_code") or f"http_{status}")
    message = str(body.get("message") or body.get("detail") or f"HTTP {status} {error.response.reason_phrase}")
    advice = _advice(status, address)
    told = f"{message.rstrip('.')}. {advice}" if advice else message
    return EndpointError(told, code, status, _retry_after(error.response.headers.get("retry-after")))


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, of a ``Retry-After`` (RFC 9110, 10.2.3): a number, or a date."""
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
            return "Check the credentials: DATABRICKS_TOKEN, a service principal's or a profile's, or api_key."
        return "Check the api_key."
    if status in (404, 405):
        return f"Is {address.base_url} the endpoint's address?"
    if status in (429, 503):
        return "The endpoint is busy or starting: wait, then ask again."
    return ""
