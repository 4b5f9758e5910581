"""Promote a registered version: move the alias to it if it is better than the champion."""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from oneturn.agent import Agent
from oneturn.config.tracking import use_tracking
from oneturn.core.secrets import UNCERTAIN, find_secrets
from oneturn.datasets.overlap import RepeatedRow, refuse_repeated_rows, repeated_rows
from oneturn.deployment.registry import champion_of, evaluate_version, is_compiled, version_of
from oneturn.errors import DataError, OneTurnError, ProgramError
from oneturn.evaluation.comparison import GateResult, compare
from oneturn.evaluation.promotion_rule import check_split
from oneturn.evaluation.result import Evaluation
from oneturn.programs.state import read_compiled
from oneturn.programs.state.artifact_sources import compiled_file

_NO_CHAMPION = "Not compared: there is no champion, and the version isn't compiled."
_MAX_TAG_LENGTH = 250
"""Characters of a tag's value, which Unity Catalog limits."""
_OPTIONAL_TAGS = ("promotion_reason", "gate_run", "repeated_rows")
"""Tags that not every promotion sets; those of an earlier promotion are deleted."""


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion.

    Attributes:
        name: the registered model.
        version: the version.
        alias: the alias.
        replaced: the version that the alias pointed at before; ``None`` if there was none.
        moved: whether the promotion moved the alias to ``version``.
        forced: whether the alias was moved although the rule doesn't hold.
        verdict: the gate's result in one line, or why there is none.
        result: the gate's result; ``None`` without a comparison.
        run_id: the MLflow run with the report and the rows; ``None`` without a comparison.
        repeated_rows: the rows of dev and test that the version's prompts repeat; only a forced promotion has any.
    """

    name: str
    version: str
    alias: str
    replaced: str | None
    moved: bool
    forced: bool
    verdict: str
    result: GateResult | None
    run_id: str | None
    repeated_rows: tuple[str, ...] = ()


def promote(
    agent: Agent,
    version: str | int | None = None,
    *,
    split: str = "dev",
    force: bool = False,
    reason: str | None = None,
    dry_run: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Promotion:
    """Move the configured alias to a registered version, if the gate's rule holds.

    Champion and challenger answer all examples of the split, each in its own process with its own code, configuration
    and LM; ``agent``'s metric judges both. If there is no champion, the version is compared with its uncompiled
    program; if the version isn't compiled either, the alias moves without a comparison.

    The report of a comparison is always logged to an MLflow run. Tags on the version record who moved the alias, when,
    and the gate's result.

    Args:
        agent: provides the registered model, the rule, the examples and the metric.
        version: the version; ``None`` for the latest.
        split: the examples; not ``"test"`` or ``"train"``.
        force: move the alias even if the rule doesn't hold or the comparison fails.
        reason: the recorded reason; required with ``force``.
        dry_run: compare and report without moving the alias.
        on_progress: is called with a line before each version answers.

    Raises:
        DataError: the split is ``"test"`` or ``"train"``, or has fewer examples than the gate needs, and the promotion
            isn't forced.
        ProgramError: there is no such version; ``force`` has no reason; the reason can't be recorded; the prompts of
            the version repeat rows of dev or test, and the promotion isn't forced; or the alias was moved during the
            comparison.
        OneTurnError: the versions couldn't be compared.
    """
    check_split(split)
    if force and not (reason or "").strip():
        raise ProgramError("A forced promotion needs a reason, which is recorded on the version: give --reason.")
    check_reason(reason or "")
    settings, alias = agent.config.mlflow, agent.config.gate.alias
    use_tracking(settings, agent.root)
    client = MlflowClient()
    challenger = version_of(client, settings.model_name, None if version is None else str(version))
    champion = champion_of(client, settings.model_name, alias)
    champion_number, number = _number(champion), str(challenger.version)
    promotion = Promotion(challenger.name, number, alias, champion_number, False, False, "", None, None)
    if champion_number == number:
        return replace(promotion, verdict=f"Version {champion_number} already has the alias {alias}.")
    repeated = _repeated_rows(agent, challenger, force)
    if not force:
        hint = "To promote it anyway: --force --reason TEXT."
        refuse_repeated_rows(repeated, f"Version {number} isn't promoted", hint)
    promotion = replace(promotion, repeated_rows=tuple(row.row for row in repeated))
    promotion = _compare(promotion, agent, split, champion, challenger, force, on_progress or (lambda line: None))
    holds = promotion.result.passed if promotion.result is not None else promotion.verdict == _NO_CHAMPION
    if dry_run or not (holds or force):
        return promotion
    promotion = replace(promotion, moved=True, forced=not holds)
    _move_alias(client, promotion, reason)
    return promotion


def _repeated_rows(agent: Agent, version: ModelVersion, force: bool) -> list[RepeatedRow]:
    try:
        if not is_compiled(version):
            return []
        with tempfile.TemporaryDirectory() as folder:
            uri = f"models:/{version.name}/{version.version}"
            return repeated_rows(agent, read_compiled(compiled_file(uri, None, Path(folder)))[1])
    except OneTurnError:
        if not force:
            raise
        return []  # the comparison fails for the same reason, which is recorded


def check_reason(reason: str) -> None:
    """Raise ``ProgramError`` before anything is done if the reason can't be recorded on a version."""
    if len(reason) > _MAX_TAG_LENGTH:
        raise ProgramError(f"The reason has {len(reason)} characters; a version's tag allows {_MAX_TAG_LENGTH}.")
    if find_secrets(reason, without=UNCERTAIN):  # a reason is prose
        raise ProgramError("The reason contains what looks like a secret; remove it, because the reason is public.")


def _compare(
    promotion: Promotion,
    agent: Agent,
    split: str,
    champion: ModelVersion | None,
    challenger: ModelVersion,
    force: bool,
    on_progress: Callable[[str], None],
) -> Promotion:
    if champion is None and not is_compiled(challenger):
        return replace(promotion, verdict=_NO_CHAMPION)
    name = f"version {challenger.version}"
    examples = agent.examples(split)
    least = agent.config.gate.min_examples
    if len(examples) < least and not force:
        raise DataError(
            f"The split {split!r} has {len(examples)} examples, and a comparison needs at least {least} "
            "(gate.min_examples). Add examples, lower gate.min_examples, or promote with --force --reason TEXT."
        )
    what = f"{len(examples)} examples of {split}, in a process of its own"
    try:
        on_progress(f"The challenger, {name}, answers {what}.")
        after = evaluate_version(agent, challenger, examples)
        if champion is None:
            baseline_name = f"{name} uncompiled"
            on_progress(f"There is no champion: {baseline_name} answers {what}.")
            before = evaluate_version(agent, challenger, examples, compiled=False)
        else:
            baseline_name = f"version {champion.version}"
            on_progress(f"The champion, {baseline_name}, answers {what}.")
            before = evaluate_version(agent, champion, examples)
        result = compare(before, after, agent.config.gate, names=(baseline_name, name))
    except OneTurnError as error:
        if not force:
            raise
        return replace(promotion, verdict=f"Not compared: {error}")
    run_id = _log_comparison(promotion, agent, result, {baseline_name: before, name: after})
    return replace(promotion, result=result, verdict=result.verdict, run_id=run_id)


def _log_comparison(promotion: Promotion, agent: Agent, result: GateResult, evaluations: dict[str, Evaluation]) -> str:
    with mlflow.start_run(run_name=f"gate {promotion.name}, version {promotion.version}", nested=True) as run:
        mlflow.set_tags(
            {"oneturn.gate": "passed" if result.passed else "refused", "oneturn.version": promotion.version}
        )
        mlflow.log_params({"challenger": result.challenger, "champion": result.champion, **_rule(agent)})
        figures = {"difference": result.difference, "difference_low": result.low, "difference_high": result.high}
        scores = {"champion_score": result.champion_score, "challenger_score": result.challenger_score}
        mlflow.log_metrics({**figures, **scores, "better": len(result.better), "worse": len(result.worse)})
        mlflow.log_text(result.to_markdown(), "gate.md")
        mlflow.log_text(result.to_json(), "gate.json")
        for name, evaluation in evaluations.items():
            mlflow.log_text(evaluation.to_jsonl(), f"rows/{name.replace(' ', '_')}.jsonl")
    return str(run.info.run_id)


def _rule(agent: Agent) -> dict[str, object]:
    return {f"gate.{name}": value for name, value in agent.config.gate.model_dump().items()}


def _move_alias(client: MlflowClient, promotion: Promotion, reason: str | None) -> None:
    current = _number(champion_of(client, promotion.name, promotion.alias))
    if current != promotion.replaced:
        raise ProgramError(
            f"{promotion.alias!r} of {promotion.name!r} was moved to version {current or 'none'} during the "
            "comparison. Run the command again to compare with that version."
        )
    record = _record(promotion, reason)
    old_tags = client.get_model_version(promotion.name, promotion.version).tags
    for name in _OPTIONAL_TAGS:
        if name not in record and f"oneturn_{name}" in old_tags:
            client.delete_model_version_tag(promotion.name, promotion.version, f"oneturn_{name}")
    for name, value in record.items():
        client.set_model_version_tag(promotion.name, promotion.version, f"oneturn_{name}", value[:_MAX_TAG_LENGTH])
    client.set_registered_model_alias(promotion.name, promotion.alias, promotion.version)
    if promotion.run_id is not None:  # a version's tags describe its last promotion, the runs describe each one
        for name, value in record.items():
            if name.startswith("promot"):
                client.set_tag(promotion.run_id, f"oneturn.{name}", value)


def _number(version: ModelVersion | None) -> str | None:
    return None if version is None else str(version.version)  # MLflow's stores return numbers or strings


def _record(promotion: Promotion, reason: str | None) -> dict[str, str]:
    record = {
        "promoted_as": promotion.alias,
        "promoted_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "promoted_by": _user_name(),
        "promotion": "forced" if promotion.forced else "by the gate",
        "gate": promotion.verdict,
        "replaced": promotion.replaced or "none",
    }
    optional = {
        "promotion_reason": reason,
        "gate_run": promotion.run_id,
        "repeated_rows": ", ".join(promotion.repeated_rows),
    }
    return record | {name: value for name, value in optional.items() if value}


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user has no name, as in some containers
        return "unknown"
