"""Grade an endpoint over HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from oneturn.conformance.endpoint import Answer, Endpoint
from oneturn.conformance.probes import (
    QUESTION,
    Settings,
    came_in_deltas,
    contract_of,
    lost_text,
    new_marker,
    probe_bad_requests,
    probe_concurrency,
    probe_leaving,
    probe_plain,
    probe_stream,
)
from oneturn.conformance.report import Probe, Report
from oneturn.conformance.rules import Findings
from oneturn.core.findings import Severity
from oneturn.errors import ConfigError, EndpointError

MOST_STREAMS = 64
"""How many requests are sent at once at most."""

OnProbe = Callable[[str], object]
"""Is told what is tried next."""


def check_endpoint(
    url: str,
    *,
    key: str | None = None,
    extra: Mapping[str, Any] | None = None,
    question: str = QUESTION,
    concurrency: int = 16,
    echo: bool = False,
    deterministic: bool = False,
    answered: bool = False,
    timeout: float = 120.0,
    on_probe: OnProbe | None = None,
) -> Report:
    """Grade the Responses endpoint at ``url``, ours or not.

    It gets ``concurrency`` + 14 requests at most, and each may take ``timeout`` seconds: two streams, one of them
    again without a stream, seven that are wrong or unusual, three whose client goes away, one more, and
    ``concurrency`` at once.

    Args:
        url: ``http://host:port``, with or without a path that ends in ``/responses`` or ``/invocations``; or
            ``https://<workspace>/serving-endpoints/<name>`` on Databricks.
        key: the bearer token to send.
        extra: what each request holds besides its input, such as ``model`` or ``custom_inputs``.
        question: what is asked; ``{marker}`` in it becomes a word of each request's own.
        concurrency: requests at once, up to 64; below 2 that isn't tried.
        echo: whether the agent is known to repeat the marker: then losing it is an error.
        deterministic: whether the same question has always the same answer: then the stream is compared with the
            response that isn't streamed.
        answered: whether the agent runs all its tools itself: then each call must have its output.
        timeout: seconds that one answer may take.
        on_probe: told what is tried next.

    Raises:
        EndpointError: the endpoint can't be reached, or lets nobody in; nothing was graded then.
        ConfigError: ``concurrency`` is above 64, or there is no ``{marker}`` in a question that is to be repeated.
    """
    if concurrency > MOST_STREAMS:
        raise ConfigError(f"concurrency is {concurrency}; at most {MOST_STREAMS} requests are sent at once.")
    if "{marker}" not in question and (echo or concurrency > 1):
        raise ConfigError(f"The question {question!r} has no {{marker}}, by which requests are told apart.")
    settings = Settings(question, echo, deterministic, answered)
    with Endpoint(url, key, extra or {}, timeout) as endpoint:
        return _Grader(endpoint, settings, on_probe or (lambda name: None)).grade(concurrency)


class _Grader:
    def __init__(self, endpoint: Endpoint, settings: Settings, on_probe: OnProbe):
        self._endpoint = endpoint
        self._settings = settings
        self._say = on_probe

    def grade(self, concurrency: int) -> Report:
        self._say("a stream")
        marker = new_marker()
        first, answer = probe_stream("stream", self._endpoint, self._settings, marker)
        _refuse_strangers(answer, self._endpoint.address)
        probes = [first]
        if not answer.late:  # an endpoint that is silent would be so for hours
            probes += self._more(marker, answer, first, concurrency)
        return Report(self._endpoint.address, contract_of(answer), probes)

    def _more(self, marker: str, answer: Answer, first: Probe, concurrency: int) -> list[Probe]:
        endpoint, settings = self._endpoint, self._settings
        self._say("a second stream")
        second, again = probe_stream("stream again", endpoint, settings, new_marker())
        probes = [_with_loss(second, again, came_in_deltas(answer))]
        self._say("the same without a stream")
        probes.append(probe_plain(endpoint, settings, marker, answer))
        self._say("bad requests")
        probes.append(probe_bad_requests(endpoint, settings))
        self._say("clients that leave")
        known = {
            violation.rule
            for violation in (*first.violations, *second.violations)
            if violation.severity is Severity.error
        }
        probes.append(probe_leaving(endpoint, settings, new_marker(), known))
        if concurrency > 1:
            self._say(f"{concurrency} streams at once")
            probes.append(probe_concurrency(endpoint, settings, concurrency, [answer, again]))
        return probes


def _with_loss(probe: Probe, answer: Answer, streamed_before: bool) -> Probe:
    if not (streamed_before and lost_text(answer)):
        return probe
    found = Findings()
    found.add("text-lost", "The stream before came in deltas, this one without.")
    return dataclasses.replace(probe, violations=[*found.in_order(), *probe.violations])


def _refuse_strangers(answer: Answer, address: str) -> None:
    if answer.unreachable:
        raise EndpointError(f"Can't reach {address}: {answer.broken}. Is it served there?", "unreachable")
    advice = {
        401: "Name the environment variable that holds its token: --key-env NAME.",
        403: "The token isn't allowed to ask it.",
        404: "Give the address up to /responses or /invocations.",
        405: "Give the address up to /responses or /invocations.",
    }
    if answer.status in advice:
        raise EndpointError(
            f"{address} answered with {answer.status}. {advice[answer.status]}", "refused", answer.status
        )
