"""A compiled program as one JSON file: its manifest, then its state. No pickle, no LM, no secret."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import dspy
import pydantic

from oneturn.core.secrets import refuse_secrets_in
from oneturn.errors import ProgramError
from oneturn.programs.state.drift import Difference, differences
from oneturn.programs.state.interface import PROGRAM, Interface, interface_of
from oneturn.programs.state.migration import splice

OnDrift: TypeAlias = Literal["fail", "splice"]
"""What loading does with a state whose program has changed since."""

_Model = TypeVar("_Model", bound=pydantic.BaseModel)
_log = logging.getLogger(__name__)


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
        interface: the signature and the tools of the program before it was compiled, with their SHA-256; without it,
            drift is noticed in the number of fields only.
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
    interface: Interface | None = None


class _Field(pydantic.BaseModel):
    prefix: str
    description: str


class _Signature(pydantic.BaseModel):
    instructions: str
    fields: list[_Field]


class _Predictor(pydantic.BaseModel):
    """What DSPy's state of a predictor has at least."""

    signature: _Signature
    demos: list[dict[str, Any]]


def save_compiled(program: dspy.Module, manifest: Manifest, path: Path) -> None:
    """Write ``program``'s state and its manifest to ``path``, whole or not at all. The LM stays out of it.

    The same program and manifest give the same bytes.

    Raises:
        ProgramError: a value looks like a secret.
    """
    state = program.dump_state()
    if isinstance(program, dspy.Predict):  # its state has no name
        state = {PROGRAM: state}
    for predictor in state.values():
        if isinstance(predictor, dict):
            predictor["lm"] = None
            predictor["traces"] = []
    document = {"manifest": manifest.model_dump(), "state": state}
    refuse_secrets_in(document, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    # Half a surrogate pair, as a reply that was cut may end with, has no UTF-8; escaped, it is JSON still.
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)


def load_compiled(program: dspy.Module, path: str | Path, *, on_drift: OnDrift = "fail") -> Manifest:
    """Put the state in ``path`` into ``program``; give its manifest.

    Args:
        program: uncompiled.
        path: the compiled program's file.
        on_drift: what to do if the program's signature or tools have changed since it was compiled: ``"fail"``; or
            ``"splice"`` the changed tools and descriptions into what was compiled, and log a warning that names them.

    Raises:
        ProgramError: there is no such file, it isn't a compiled program, or it belongs to another program: the message
            names each difference.
    """
    path = Path(path)
    document = _read(path)
    state = document["state"]
    expected, found = sorted(dict(program.named_parameters())), sorted(k for k in state if k != "metadata")
    if expected != found:
        raise ProgramError(f"{path} was compiled for predictors {found}, the program has {expected}. Compile it again.")
    manifest = _manifest(document, path)
    for name, _ in program.named_predictors():
        _check(_Predictor, state[name], f"state.{name}", path)
    fitting = _fitting(program, state, manifest, path, on_drift)
    program.load_state(fitting[PROGRAM] if isinstance(program, dspy.Predict) else fitting)
    return manifest


def drift_of(program: dspy.Module, path: Path) -> list[str]:
    """How ``program``, uncompiled, differs from the one that ``path`` was compiled for: a line each, in words.

    Raises:
        ProgramError: there is no such file, or it isn't a compiled program.
    """
    interface = read_manifest(path).interface
    return [] if interface is None else [found.words for found in differences(interface, interface_of(program))]


def read_compiled(path: Path) -> tuple[Manifest, dict[str, Any]]:
    """The manifest and the state of the compiled program in ``path``; raises as ``load_compiled`` does."""
    document = _read(path)
    return _manifest(document, path), document["state"]


def check_secrets(path: Path) -> None:
    """Raise ``ProgramError`` if a value of the compiled program in ``path`` looks like a secret."""
    refuse_secrets_in(_read(path), str(path))


def read_manifest(path: Path) -> Manifest:
    """The manifest of the compiled program in ``path``; raises as ``load_compiled`` does."""
    return _manifest(_read(path), path)


def _manifest(document: dict[str, Any], path: Path) -> Manifest:
    return _check(Manifest, document["manifest"], "manifest", path)


def _check(model: type[_Model], found: Any, place: str, path: Path) -> _Model:
    try:
        return model.model_validate(found)
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        place = ".".join([place, *map(str, detail["loc"])])
        raise ProgramError(f"{path}: {place} is wrong: {detail['msg']}. Make it again with: oneturn compile") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProgramError(f"There is no compiled program {path}. Make one with: oneturn compile") from None
    except OSError as error:
        raise ProgramError(f"{path} can't be read: {error.strerror}.") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise ProgramError(f"{path} is not JSON ({error}). Make it again with: oneturn compile") from None
    if not isinstance(document, dict) or {"manifest", "state"} - set(document):
        raise ProgramError(f"{path} lacks a manifest or a state. Make it again with: oneturn compile")
    _check_state(document["state"], path)
    return document


def _check_state(state: Any, path: Path) -> None:
    if not isinstance(state, dict):
        raise ProgramError(f"{path}: state isn't a mapping of predictors. Make it again with: oneturn compile")
    for name, saved in state.items():
        if not isinstance(saved, dict) or {"signature", "demos"} & set(saved):  # else it is no predictor's
            _check(_Predictor, saved, f"state.{name}", path)


def _fitting(
    program: dspy.Module, state: dict[str, Any], manifest: Manifest, path: Path, on_drift: OnDrift
) -> dict[str, Any]:
    """The state as the program can use it."""
    compiled = manifest.interface
    if compiled is None:
        _log.warning("%s doesn't say which signature and tools it was compiled for; compile it again.", path)
        _check_fields(program, state, path)
        return state
    _check_own_fields(state, compiled, path)
    current = interface_of(program)
    found = differences(compiled, current)
    if not found:
        _check_fields(program, state, path)
        return state
    if on_drift == "fail" or not all(difference.can_splice for difference in found):
        raise ProgramError(_told(found, path, on_drift))
    spliced, notes = splice(state, compiled, program, current)
    told = [f"  - {line}" for line in [*(difference.words for difference in found), *notes]]
    _log.warning("%s was compiled for another program; spliced in, but not measured:\n%s", path, "\n".join(told))
    return spliced


def _told(found: list[Difference], path: Path, on_drift: OnDrift) -> str:
    lines = "\n".join(f"  - {difference.words}" for difference in found)
    hint = "Compile it again"
    if all(difference.can_splice for difference in found):
        hint += ", or load what was compiled with these changes spliced in: compiled_on_drift: splice"
    elif on_drift == "splice":
        hint += ": new fields can't be spliced in"
    return f"{path} was compiled for another program than this one:\n{lines}\n{hint}."


def _check_own_fields(state: dict[str, Any], compiled: Interface, path: Path) -> None:
    for name in compiled.predictors.keys() & state.keys():
        shape = compiled.predictors[name]
        told, saved = len(shape.inputs) + len(shape.outputs), len(state[name]["signature"]["fields"])
        if told != saved:
            raise ProgramError(
                f"{path}: state.{name} has {saved} fields, its manifest tells of {told}. "
                "Make it again with: oneturn compile"
            )


def _check_fields(program: dspy.Module, state: dict[str, Any], path: Path) -> None:
    for name, predictor in program.named_predictors():
        fields = len(predictor.signature.fields)
        saved = len(state[name]["signature"]["fields"])
        if fields != saved:
            raise ProgramError(
                f"{path}: predictor {name!r} was compiled with {saved} fields, the program's has {fields}: "
                f"{', '.join(predictor.signature.fields)}. Compile it again."
            )
