"""A compiled program as one JSON file: its manifest, then its state. No pickle, no LM, no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pydantic

from oneturn.errors import ProgramError


class Manifest(pydantic.BaseModel):
    """Where a compiled program comes from and what it was measured to be worth.

    Attributes:
        recipe: the recipe's name.
        lm: the model string of the LM it was compiled on.
        seed: of the recipe's choices.
        created: ISO 8601, UTC.
        versions: of the packages that made it.
        dataset: SHA-256 of each split that was used.
        scores: before and after, on the development split; see ``Evaluation.summary``.
        spend: LM calls, tokens, seconds and, where prices are known, US dollars of the whole compile.
        estimate: what had been told before that it would cost, each as least and most.
        stopped: the limit of the budget that ended the compile.
    """

    recipe: str
    lm: str
    seed: int
    created: str
    versions: dict[str, str]
    dataset: dict[str, str]
    scores: dict[str, dict[str, float]]
    spend: dict[str, float]
    estimate: dict[str, list[float]] | None = None
    stopped: str | None = None


def save_compiled(program: dspy.Module, manifest: Manifest, path: Path) -> None:
    """Write ``program``'s state and its manifest to ``path``, whole or not at all. The LM stays out of it."""
    state = _named(program, program.dump_state())
    for predictor in state.values():
        if isinstance(predictor, dict):
            predictor["lm"] = None
            predictor["traces"] = []
    document = {"manifest": manifest.model_dump(), "state": state}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def load_compiled(program: dspy.Module, path: Path) -> Manifest:
    """Put the state in ``path`` into ``program``; give its manifest.

    Raises:
        ProgramError: there is no such file, it isn't a compiled program, or it belongs to another program.
    """
    document = _read(path)
    state = document["state"]
    expected, found = sorted(dict(program.named_parameters())), sorted(k for k in state if k != "metadata")
    if expected != found:
        raise ProgramError(f"{path} was compiled for predictors {found}, the program has {expected}. Compile it again.")
    _check_fields(program, state, path)
    manifest = _manifest(document, path)
    program.load_state(state["self"] if isinstance(program, dspy.Predict) else state)
    return manifest


def _named(program: dspy.Module, state: dict[str, Any]) -> dict[str, Any]:
    """A state by the names of its predictors: that of a bare ``dspy.Predict`` is its own."""
    return {"self": state} if isinstance(program, dspy.Predict) else state


def read_manifest(path: Path) -> Manifest:
    """The manifest of the compiled program in ``path``; raises as ``load_compiled`` does."""
    return _manifest(_read(path), path)


def _manifest(document: dict[str, Any], path: Path) -> Manifest:
    try:
        return Manifest.model_validate(document["manifest"])
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        reason = f"the manifest's {place!r} is wrong: {detail['msg']}"
        raise ProgramError(f"{path}: {reason}. Make it again with: oneturn compile") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProgramError(f"There is no compiled program {path}. Make one with: oneturn compile") from None
    except json.JSONDecodeError as error:
        raise ProgramError(f"{path} is not JSON ({error}). Make it again with: oneturn compile") from None
    if not isinstance(document, dict) or {"manifest", "state"} - set(document):
        raise ProgramError(f"{path} lacks a manifest or a state. Make it again with: oneturn compile")
    return document


def _check_fields(program: dspy.Module, state: dict[str, Any], path: Path) -> None:
    for name, predictor in program.named_predictors():
        fields = len(predictor.signature.fields)
        saved = len(state[name]["signature"]["fields"])
        if fields != saved:
            raise ProgramError(
                f"{path}: predictor {name!r} was compiled with {saved} fields, the program's has {fields}: "
                f"{', '.join(predictor.signature.fields)}. Compile it again."
            )
