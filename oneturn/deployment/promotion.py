"""Move the registry's alias to a version that is better than the one it points at."""

from __future__ import annotations

import getpass
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from oneturn.agent import Agent
from oneturn.config.tracking import use_tracking
from oneturn.core.secrets import looks_secret
from oneturn.deployment.registry import champion_of, evaluate_version, is_compiled, version_of
from oneturn.errors import OneTurnError, ProgramError
from oneturn.evaluation.comparison import GateResult, check_split, compare
from oneturn.evaluation.result import Evaluation

_FIRST = "Not compared: there was no champion yet, and the version isn't compiled."
_LONGEST = 250
"""Characters of a tag's value, which Unity Catalog limits."""
_OPTIONAL = ("promotion_reason", "gate_run")
"""What a record may lack: an earlier one's isn't left beside it."""


@dataclass(frozen=True)
class Promotion:
    """What became of a version that wanted to be the champion.

    Attributes:
        name: the registered model.
        version: the version.
        alias: the alias that it wanted.
        replaced: the version that the alias pointed at before; ``None`` if it pointed at none.
        moved: whether the alias points at ``version`` now because of this.
        forced: whether it was moved although the rule doesn't hold.
        verdict: the gate's result, or why there is none, in a line.
        result: the gate's result; ``None`` where nothing could be compared.
        run_id: the MLflow run that has the report and the rows; ``None`` where nothing was compared.
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


def promote(
    agent: Agent,
    version: str | int | None = None,
    *,
    split: str = "dev",
    force: bool = False,
    reason: str | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Move the configured alias to a registered version, if the gate's rule holds.

    Champion and challenger answer all examples of the split, each in a process of its own, with its own code,
    configuration and LM; ``agent``'s metric judges both. Where there is no champion yet, the version is compared with
    its own uncompiled program; if it isn't compiled itself, there is nothing to compare, and the alias moves.

    The report stands in an MLflow run, whatever it says. On the version, tags say who moved the alias, when, and by
    which figures.

    Args:
        agent: says which registered model, which rule, which examples and which metric.
        version: the version; ``None`` for the latest.
        split: the examples; never test, never train.
        force: move the alias even if the rule doesn't hold, or if nothing can be compared.
        reason: why; it is recorded. Needed with ``force``.
        dry_run: compare and report, and leave the alias where it is.

    Raises:
        DataError: the split is ``"test"`` or ``"train"``.
        ProgramError: there is no such version; ``force`` has no reason, or one that can't be recorded; or the alias was
            moved by somebody else meanwhile.
        OneTurnError: the versions couldn't be compared.
    """
    check_split(split)
    _check_reason(reason, force)
    settings, alias = agent.config.mlflow, agent.config.gate.alias
    use_tracking(settings)
    client = MlflowClient()
    challenger = version_of(client, settings.model_name, None if version is None else str(version))
    champion = champion_of(client, settings.model_name, alias)
    before, number = _number(champion), str(challenger.version)
    found = Promotion(challenger.name, number, alias, before, False, False, "", None, None)
    if before == number:
        return replace(found, verdict=f"Version {before} is the {alias} already.")
    found = _compared(found, agent, split, champion, challenger, force)
    holds = found.result.passed if found.result is not None else found.verdict == _FIRST
    if dry_run or not (holds or force):
        return found
    found = replace(found, moved=True, forced=not holds)
    _move(client, found, reason)
    return found


def _check_reason(reason: str | None, force: bool) -> None:
    """Before anything is measured: what is said of a promotion is kept, whole, where others read it."""
    if force and not (reason or "").strip():
        raise ProgramError("To force a promotion, say why: --reason. It is recorded on the version.")
    if len(reason or "") > _LONGEST:
        raise ProgramError(f"The reason has {len(reason or '')} characters; a version's tag holds {_LONGEST}.")
    if looks_secret(reason or ""):
        raise ProgramError("The reason holds what looks like a secret, and everybody who sees the version reads it.")


def _compared(
    found: Promotion, agent: Agent, split: str, champion: ModelVersion | None, challenger: ModelVersion, force: bool
) -> Promotion:
    if champion is None and not is_compiled(challenger):
        return replace(found, verdict=_FIRST)
    name = f"version {challenger.version}"
    examples = agent.examples(split)
    try:
        after = evaluate_version(agent, challenger, examples)
        if champion is None:
            other, before = f"{name} uncompiled", evaluate_version(agent, challenger, examples, compiled=False)
        else:
            other, before = f"version {champion.version}", evaluate_version(agent, champion, examples)
        result = compare(before, after, agent.config.gate, names=(other, name))
    except OneTurnError as error:
        if not force:
            raise
        return replace(found, verdict=f"Not compared: {error}")
    run_id = _logged(found, agent, result, {other: before, name: after})
    return replace(found, result=result, verdict=result.verdict, run_id=run_id)


def _logged(found: Promotion, agent: Agent, result: GateResult, evaluations: dict[str, Evaluation]) -> str:
    with mlflow.start_run(run_name=f"gate {found.name}, version {found.version}", nested=True) as run:
        mlflow.set_tags({"oneturn.gate": "passed" if result.passed else "refused", "oneturn.version": found.version})
        mlflow.log_params({"challenger": result.challenger, "champion": result.champion, **_rule(agent)})
        figures = {"difference": result.difference, "difference_low": result.low, "difference_high": result.high}
        scores = {"champion_score": result.champion_score, "challenger_score": result.challenger_score}
        mlflow.log_metrics({**figures, **scores, "better": len(result.better), "worse": len(result.worse)})
        mlflow.log_text(result.to_markdown(), "gate.md")
        mlflow.log_text(result.to_json(), "gate.json")
        for name, evaluation in evaluations.items():
            rows = evaluation.rows.to_json(orient="records", lines=True, force_ascii=False)
            mlflow.log_text(rows, f"rows/{name.replace(' ', '_')}.jsonl")
    return str(run.info.run_id)


def _rule(agent: Agent) -> dict[str, object]:
    return {f"gate.{name}": value for name, value in agent.config.gate.model_dump().items()}


def _move(client: MlflowClient, found: Promotion, reason: str | None) -> None:
    now = _number(champion_of(client, found.name, found.alias))
    if now != found.replaced:
        raise ProgramError(
            f"{found.alias!r} of {found.name!r} was moved to version {now or 'none'} while the "
            "versions were compared. Give the same command again, to compare with that one."
        )
    record = _record(found, reason)
    earlier = client.get_model_version(found.name, found.version).tags
    for name in _OPTIONAL:
        if name not in record and f"oneturn_{name}" in earlier:
            client.delete_model_version_tag(found.name, found.version, f"oneturn_{name}")
    for name, value in record.items():
        client.set_model_version_tag(found.name, found.version, f"oneturn_{name}", value[:_LONGEST])
    client.set_registered_model_alias(found.name, found.alias, found.version)
    if found.run_id is not None:  # a version's tags tell its last promotion, the runs tell each
        for name, value in record.items():
            if name.startswith("promot"):
                client.set_tag(found.run_id, f"oneturn.{name}", value)


def _number(version: ModelVersion | None) -> str | None:
    return None if version is None else str(version.version)  # MLflow's stores give numbers or texts


def _record(found: Promotion, reason: str | None) -> dict[str, str]:
    record = {
        "promoted_as": found.alias,
        "promoted_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "promoted_by": _who(),
        "promotion": "forced" if found.forced else "by the gate",
        "gate": found.verdict,
        "replaced": found.replaced or "none",
    }
    optional = {"promotion_reason": reason, "gate_run": found.run_id}
    return record | {name: value for name, value in optional.items() if value}


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user, as in a container
        return "unknown"
