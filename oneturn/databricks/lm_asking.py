"""How an endpoint is asked, and asked again: with which credentials, with or without the reply's schema."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from dspy.lm15 import AuthError, InvalidRequestError, LM15Error, NotConfiguredError, Request, TransportError

from oneturn.databricks.credentials import Who, token_of
from oneturn.errors import ConfigError

_ABOUT_SCHEMA = re.compile(r"response_format|json_?schema|structured output|anyOf|oneOf|allOf|\$ref|prefixItems", re.I)

_schemaless: set[tuple[str, str]] = set()
"""Endpoints, by workspace and name, that have refused a schema: this process offers them none again."""


@dataclass(frozen=True)
class Asked:
    """Where a request goes, with what token, and what is sent."""

    host: str
    token: str = field(repr=False)
    request: Request

    @property
    def url(self) -> str:
        """The address of the workspace's endpoints, as OpenAI's client takes it."""
        return f"{self.host}/serving-endpoints"


def asked(endpoint: str, credentials: Who, request: Request, renew: bool = False) -> Asked:
    """The request with the credentials of the moment.

    Raises:
        NotConfiguredError: there are none.
        TransportError: the workspace that issues them can't be reached.
    """
    try:
        host, token = token_of(credentials, renew)
    except (ConfigError, ValueError) as error:
        said = str(error).partition(" Config: ")[0]
        raise NotConfiguredError(f"There are no credentials for {endpoint!r}: {said}") from error
    except OSError as error:
        raise TransportError(f"The workspace of {endpoint!r} can't be reached: {error}") from error
    return Asked(host, token, _shaped(request, endpoint, (host, endpoint) not in _schemaless))


def again(before: Asked, credentials: Who, request: Request, error: LM15Error) -> Asked:
    """What to ask after a refusal: with a renewed token, or without a schema. Raises it where neither helps."""
    endpoint = before.request.model
    if isinstance(error, AuthError) and credentials == "agent":
        renewed = asked(endpoint, credentials, request, renew=True)
        if renewed.token != before.token:
            return renewed
    if isinstance(error, InvalidRequestError) and _refuses_schema(before.request, error):
        _schemaless.add((before.host, endpoint))
        return replace(before, request=_shaped(request, endpoint, False))
    raise told(before, error)


def told(at: Asked, error: LM15Error) -> LM15Error:
    """A refusal, with the endpoint's name and what to do."""
    if error.status == 404:
        said = f"{at.host} has no serving endpoint {at.request.model!r}, or none for these credentials: {error.message}"
        return NotConfiguredError(f"{said} `oneturn doctor` names those that there are.", status=404)
    if isinstance(error, AuthError):
        error.message = (
            f"{at.host} doesn't let {at.request.model!r} be asked with these credentials: {error.message} "
            "The permission that it takes is CAN QUERY on the endpoint."
        )
        error.args = (error.message,)
    return error


def _shaped(request: Request, endpoint: str, schema: bool) -> Request:
    format_ = request.config.response_format
    if format_ is not None and not schema:
        return replace(request, model=endpoint, config=replace(request.config, response_format=None))
    return replace(request, model=endpoint)


def _refuses_schema(sent: Request, error: LM15Error) -> bool:
    return sent.config.response_format is not None and bool(_ABOUT_SCHEMA.search(error.message))
