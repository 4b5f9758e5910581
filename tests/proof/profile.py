"""How many streams are tried: a few hundred a property, or as many as ``--hypothesis-profile=proof`` says."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_USUAL = 200

proof = settings(
    max_examples=max(_USUAL, settings().max_examples),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
