"""Check an endpoint over HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from oneturn.conformance.endpoint import Answer, Endpoint
from oneturn.conformance.probes import (
    QUESTION,
    Settings,
    has_deltas,
    lacks_deltas,
    new_marker,
    probe_bad_requests,
    probe_concurrency,
    probe_disconnects,
    probe_response,
    probe_stream,
)
from oneturn.conformance.report import EndpointReport, Probe
from oneturn.conformance.rules import Contract, Findings
from oneturn.conformance.suite import run_suite
from oneturn.core.findings import Severity
from oneturn.errors import ConfigError, EndpointError

MAX_STREAMS = 64
"""The largest number of concurrent requests."""

OnProbe = Callable[[str], object]
"""Called with the description of each probe before it starts."""


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
    contract: Contract | None = None,
    timeout: float = 120.0,
    on_probe: OnProbe | None = None,
) -> EndpointReport:
    """Check the Responses endpoint at ``url``.

    Sends at most ``concurrency`` + 14 requests, each limited to ``timeout`` seconds: two streams, the first of them
    again without a stream, seven invalid or unusual requests, three whose client disconnects, one more stream, and
    ``concurrency`` streams at once. Under the contract of Open Responses, at most 13 more: its acceptance suite.

    Args:
        url: ``http://host:port``, with or without a path that ends in ``/responses`` or ``/invocations``; or
            ``https://<workspace>/serving-endpoints/<name>`` on Databricks.
        key: the bearer token to send.
        extra: fields of each request besides its input, such as ``model`` or ``custom_inputs``.
        question: the question; ``{marker}`` in it is replaced by a word unique to each request.
        concurrency: concurrent requests, at most 64; below 2 this probe is skipped.
        echo: whether the agent repeats the marker; then a missing marker is an error.
        deterministic: whether the same question always has the same answer; then the stream is compared with the
            response without a stream.
        answered: whether the agent runs all its tools itself; then each call must have its output.
        contract: what the endpoint promises, ``"openresponses"`` or ``"mlflow"``; by default the former at
            ``/v1/responses`` and the latter elsewhere.
        timeout: the longest that one answer may take, in seconds.
        on_probe: called with the description of each probe before it starts.

    Raises:
        EndpointError: the endpoint can't be reached or refuses access; there is no report.
        ConfigError: the server's ``/agent/info`` says that the agent requires inputs besides a question, and ``extra``
            has no ``custom_inputs`` for them; ``concurrency`` is above 64; or ``question`` has no ``{marker}`` although
            ``echo`` or ``concurrency`` need it.
    """
    if concurrency > MAX_STREAMS:
        raise ConfigError(f"concurrency is {concurrency}; at most {MAX_STREAMS} requests are sent at once.")
    if "{marker}" not in question and (echo or concurrency > 1):
        raise ConfigError(f"The question {question!r} has no {{marker}}, which tells requests apart; add it.")
    with Endpoint(url, key, extra or {}, timeout, contract) as endpoint:
        settings = Settings(question, echo, deterministic, answered, endpoint.checked_contract)
        return _Grader(endpoint, settings, on_probe or (lambda name: None)).grade(concurrency)


class _Grader:
    def __init__(self, endpoint: Endpoint, settings: Settings, on_probe: OnProbe):
        self._endpoint = endpoint
        self._settings = settings
        self._on_probe = on_probe

    def grade(self, concurrency: int) -> EndpointReport:
        if missing := self._endpoint.missing_inputs():
            fields = ", ".join(f'"{name}": …' for name in missing)
            raise ConfigError(
                f"This agent requires the input{'s' if len(missing) > 1 else ''} {', '.join(missing)} besides a "
                f'question: pass --request FILE (extra= in Python) with {{"custom_inputs": {{{fields}}}}}.'
            )
        self._on_probe("a stream")
        marker = new_marker()
        first, answer = probe_stream("stream", self._endpoint, self._settings, marker)
        _raise_for_access(answer, self._endpoint.address)
        probes = [first]
        if not answer.late:  # the other probes would each wait for the timeout too
            probes += self._run_other_probes(marker, answer, first, concurrency)
        findings = [finding for probe in probes for finding in probe.findings]
        return EndpointReport(findings, self._endpoint.address, self._settings.contract, probes)

    def _run_other_probes(self, marker: str, answer: Answer, first: Probe, concurrency: int) -> list[Probe]:
        endpoint, settings = self._endpoint, self._settings
        self._on_probe("a second stream")
        second, second_answer = probe_stream("stream again", endpoint, settings, new_marker())
        probes = [_check_text_lost(second, second_answer, has_deltas(answer))]
        self._on_probe("the same without a stream")
        probes.append(probe_response(endpoint, settings, marker, answer))
        self._on_probe("bad requests")
        probes.append(probe_bad_requests(endpoint, settings))
        self._on_probe("clients that leave")
        earlier_errors = {
            finding.check for finding in (*first.findings, *second.findings) if finding.severity is Severity.error
        }
        probes.append(probe_disconnects(endpoint, settings, new_marker(), earlier_errors))
        if settings.contract == "openresponses":
            probes += run_suite(endpoint, settings, self._on_probe)
        if concurrency > 1:
            self._on_probe(f"{concurrency} streams at once")
            probes.append(probe_concurrency(endpoint, settings, concurrency, [answer, second_answer]))
        return probes


def _check_text_lost(probe: Probe, answer: Answer, streamed_before: bool) -> Probe:
    if not (streamed_before and lacks_deltas(answer)):
        return probe
    findings = Findings()
    findings.add("text-lost", "The previous stream has deltas, this one has none.")
    return dataclasses.replace(probe, findings=[*findings.in_order(), *probe.findings])


def _raise_for_access(answer: Answer, address: str) -> None:
    if answer.unreachable:
        raise EndpointError(f"Can't reach {address}: {answer.broken}. Is the server running?", "unreachable")
    advice = {
        401: "Name the environment variable that holds the token: --key-env NAME.",
        403: "The token has no permission to query it.",
        404: "Pass the URL including /responses or /invocations.",
        405: "Pass the URL including /responses or /invocations.",
    }
    if answer.status in advice:
        raise EndpointError(
            f"{address} answered with {answer.status}. {advice[answer.status]}", "refused", answer.status
        )
