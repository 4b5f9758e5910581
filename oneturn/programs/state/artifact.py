"""Save and load a compiled program as one JSON file: its manifest and its state, without pickle, LM or secrets."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import dspy
import pydantic
from pydantic_core import to_jsonable_python

from oneturn.core._dspy import serialize_object
from oneturn.core.fields import PROMPT_PART
from oneturn.core.secrets import UNCERTAIN, environment_secrets, find_secrets, is_like_a_key, is_secret_name, leaves
from oneturn.core.serialization import canonical, jsonable
from oneturn.errors import ProgramError
from oneturn.programs.react import DemoPool, ReAct, Thoughts
from oneturn.programs.state.drift import differences
from oneturn.programs.state.interface import PROGRAM, Interface, interface_of

_Model = TypeVar("_Model", bound=pydantic.BaseModel)
_log = logging.getLogger(__name__)
POOL = "demo_pool"
"""The attribute of a ``ReAct`` with its pool of demos; in a state, at the end of the pool's name."""


class Manifest(pydantic.BaseModel):
    """The provenance and the scores of a compiled program.

    Attributes:
        recipe: the recipe's name.
        lm: the model string of the LM it was compiled on.
        seed: the seed of the recipe's random choices.
        created: the time of creation, ISO 8601, UTC.
        versions: the versions of the packages used.
        dataset: SHA-256 of each split used.
        scores: before and after, on the development split; see ``Evaluation.summary``.
        spend: LM calls, tokens, seconds and, where prices are known, US dollars of the whole compile.
        estimate: the estimate made before the compile, each value as minimum and maximum.
        stopped: the budget limit that ended the compile, if one did.
        tool_calling: how a ``oneturn.ReAct`` asked that LM for its steps; ``None`` for another program.
        finish_order: the order in which ``finish`` takes the outputs, by the path of each ``oneturn.ReAct``; a file
            without it was compiled with the declared order.
        front: the candidates that no other beat in both score and cost: number, LM, score and usage a question each,
            the cheapest first.
        overlap: the ``rows`` of dev and test that its prompts repeat, and the ``reason`` to save it anyway.
        thoughts: whether and how the LM writes thoughts, by the path of each ``oneturn.ReAct``; a file without it keeps
            the program's own, but for free ones, which are younger than such files.
        interface: the signature and the tools of the uncompiled program, with their SHA-256; without it, only a
            changed number of fields is detected as drift.
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
    tool_calling: str | None = None
    finish_order: dict[str, list[str]] | None = None
    front: list[dict[str, Any]] | None = None
    overlap: dict[str, Any] | None = None
    thoughts: dict[str, Thoughts] | None = None
    interface: Interface | None = None


class _Field(pydantic.BaseModel):
    prefix: str
    description: str


class _Signature(pydantic.BaseModel):
    instructions: str
    fields: list[_Field]


class _Predictor(pydantic.BaseModel):
    """The required keys of a predictor's state in DSPy."""

    signature: _Signature
    demos: list[dict[str, Any]]


class _Pool(pydantic.BaseModel):
    """The state of a demo pool."""

    k: Annotated[int, pydantic.Field(ge=1)]
    fields: list[str]
    runs: list[dict[str, Any]]


def save_compiled(program: dspy.Module, manifest: Manifest, path: Path) -> None:
    """Write ``program``'s state and its manifest to ``path`` atomically. The LM isn't saved.

    The same program and manifest give the same bytes.

    Raises:
        ProgramError: a value looks like a secret, or the file can't be written.
    """
    state = program.dump_state()
    if isinstance(program, dspy.Predict):  # the state of a single predictor has no name
        state = {PROGRAM: state}
    for predictor in state.values():
        if isinstance(predictor, dict) and "signature" in predictor:  # otherwise a pool of demos
            predictor["lm"] = None
            predictor["traces"] = []
            predictor["demos"] = jsonable(predictor.get("demos") or [])  # DSPy leaves dates as they are
    document = {"manifest": manifest.model_dump(), "state": state}
    refuse_secrets_in(document, str(path))
    partial = path.with_suffix(".tmp")
    text = json.dumps(document, indent=2, ensure_ascii=False, default=canonical) + "\n"
    # A truncated reply may end with half a surrogate pair, which UTF-8 can't encode; escaped, the text is valid JSON.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder doesn't exist, or can't be written
            partial.unlink()
        raise ProgramError(f"{path} can't be written: {error.strerror or error}.") from error


def load_compiled(program: dspy.Module, path: str | Path) -> Manifest:
    """Load the state in ``path`` into ``program`` and return its manifest.

    Args:
        program: the uncompiled program.
        path: the compiled program's file.

    Raises:
        ProgramError: the file doesn't exist, isn't a compiled program, or was compiled for another signature or other
            tools; the message lists each difference.
    """
    path = Path(path)
    document = _read(path)
    state = document["state"]
    _set_pools(program, state, path)
    expected, saved = sorted(dict(program.named_parameters())), sorted(k for k in state if k != "metadata")
    if expected != saved:
        raise ProgramError(f"{path} was compiled for predictors {saved}, the program has {expected}. Compile it again.")
    manifest = _manifest(document, path)
    for name, _ in program.named_predictors():
        _validate(_Predictor, state[name], f"state.{name}", path)
    _set_thoughts(program, _thoughts_in(manifest, program))
    _check_drift(program, state, manifest, path)
    for place, react in _reacts(program):
        react.order_outputs((manifest.finish_order or {}).get(place, react.signature.output_fields))
    program.load_state(state[PROGRAM] if isinstance(program, dspy.Predict) else state)
    for _, predictor in program.named_predictors():
        predictor.demos = [_with_types(demo, predictor.signature) for demo in predictor.demos]
    for _, react in _reacts(program):
        for run in react.demo_pool.runs if react.demo_pool is not None else ():
            _with_types(run, react.step.signature)
    return manifest


def _set_pools(program: dspy.Module, state: Mapping[str, Any], path: Path) -> None:
    """Give each ``ReAct`` of the program the demo pool that the state has for it, or none."""
    for place, react in _reacts(program):
        name = f"{place.removeprefix('self')}.{POOL}".lstrip(".")
        react.demo_pool = None
        if name in state:
            pool = _validate(_Pool, state[name], f"state.{name}", path)
            react.demo_pool = DemoPool(pool.runs, pool.fields, pool.k)


def tool_calling_change(manifest: Manifest, program: dspy.Module, lm: dspy.BaseLM) -> str | None:
    """Return a line on a program that was compiled for another way of asking the LM; ``None`` if it wasn't.

    The demos and the instructions were chosen for the prompts of that way; they work in any other, but maybe less well.
    """
    if manifest.tool_calling is None or not isinstance(program, ReAct):
        return None
    way = program.tool_calling_with(lm)
    if way == manifest.tool_calling:
        return None
    return f"it was compiled for tool calling by {manifest.tool_calling!r}, and {lm.model} is asked by {way!r}"


def finish_order_of(program: dspy.Module) -> dict[str, list[str]]:
    """Return the order in which ``finish`` takes the outputs, by the path of each ``ReAct`` in the program."""
    return {place: list(react.steps_schema.outputs) for place, react in _reacts(program)}


def thoughts_of(program: dspy.Module) -> dict[str, Thoughts]:
    """Return whether and how the LM writes thoughts, by the path of each ``ReAct`` in the program."""
    return {place: react.thoughts for place, react in _reacts(program)}


def compiled_interface(student: dspy.Module, thoughts: Mapping[str, Thoughts] | None) -> Interface:
    """Return the interface of an uncompiled program with the thoughts that it was compiled with."""
    declared = thoughts_of(student)
    try:
        _set_thoughts(student, thoughts)
        return interface_of(student)
    finally:
        _set_thoughts(student, declared)


def _thoughts_in(manifest: Manifest, program: dspy.Module) -> dict[str, Thoughts]:
    """Return the thoughts that a program was compiled with; older files, which don't say, never with free ones."""
    if manifest.thoughts is not None:
        return manifest.thoughts
    return {place: True if declared == "free" else declared for place, declared in thoughts_of(program).items()}


def _set_thoughts(program: dspy.Module, thoughts: Mapping[str, Thoughts] | None) -> None:
    for place, react in _reacts(program):
        if thoughts is not None and thoughts.get(place, react.thoughts) != react.thoughts:
            react.set_thoughts(thoughts[place])


def _reacts(program: dspy.Module) -> list[tuple[str, ReAct]]:
    return [(place, part) for place, part in program.named_sub_modules(ReAct)]


def check_savable(values: Iterable[Mapping[str, Any]], signature: type[dspy.Signature]) -> None:
    """Check that a demo with these field values can be saved and loaded, before a compile pays for one.

    Raises:
        ProgramError: a value has no JSON form, or can't be read back as its field's type.
    """
    for fields in values:
        for name, value in fields.items():
            field = signature.fields.get(name)
            if field is None or value is None or isinstance(value, str | int | float):
                continue
            try:
                saved = json.loads(json.dumps(serialize_object(value), default=_to_json))
                loaded = _with_types({name: saved}, signature)[name]
            except (TypeError, ValueError, RecursionError):
                saved = loaded = None
            if loaded is None:
                raise ProgramError(
                    f"{name} = {value!r:.80} can't be saved in a compiled program: {type(value).__name__} has no JSON "
                    "form. Give the field a type that pydantic can write and read."
                )


def _to_json(value: Any) -> Any:
    """Convert a value to JSON types.

    Raises:
        ValueError: its type has no JSON form.
    """
    return canonical(value) if isinstance(value, set | frozenset) else to_jsonable_python(value)


def _with_types(demo: Any, signature: type[dspy.Signature]) -> Any:
    """The demo with its fields in their declared types, which JSON doesn't have: dates, enums, sets, histories."""
    for name, field in signature.fields.items():
        value = demo.get(name)
        if value is None or field.annotation is str or (isinstance(value, str) and PROMPT_PART in value):
            continue
        try:
            demo[name] = pydantic.TypeAdapter(field.annotation).validate_python(value)
        except (pydantic.ValidationError, pydantic.errors.PydanticSchemaGenerationError):
            _log.debug("%s of a demo isn't of the type %s; it is used as it was saved.", name, field.annotation)
    return demo


def drift_of(program: dspy.Module, path: Path) -> list[str]:
    """Return the differences between the uncompiled ``program`` and the one that ``path`` was compiled for, as lines.

    Raises:
        ProgramError: the file doesn't exist, or isn't a compiled program.
    """
    manifest = read_manifest(path)
    if manifest.interface is None:
        return []
    return differences(manifest.interface, compiled_interface(program, _thoughts_in(manifest, program)))


def read_compiled(path: Path) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest and the state of the compiled program in ``path``; raises as ``load_compiled`` does."""
    document = _read(path)
    return _manifest(document, path), document["state"]


def refuse_secrets_in(state: Any, source: str) -> None:
    """Check that a compiled program contains no text that looks like a secret or is one from the environment.

    Secrets of the environment are the values of variables with names such as ``OPENAI_API_KEY``.

    Args:
        state: mappings, lists and texts.
        source: the name of the program in the message.

    Raises:
        ProgramError: a key or value looks like a secret.
    """
    environment = environment_secrets()
    for path, name in _names(state):
        if _secret_kind(name):
            _refuse(source, path or "the program", "has a key that looks like a secret")
    for path, key, value in leaves(state):
        if not isinstance(value, str):
            continue
        if variable := next((name for name, secret in environment.items() if secret in value), None):
            _refuse(source, path, f"contains the value of the environment variable {variable}")
        if kind := _secret_kind(value):
            _refuse(source, path, f"looks like a secret ({kind})")
        if is_secret_name(key) and is_like_a_key(value):
            _refuse(source, path, "looks like a secret")


def _secret_kind(text: str) -> str | None:
    # Prompts and demos are prose: what only may be a secret doesn't stop a compile.
    return next((secret.kind for secret in find_secrets(text, without=UNCERTAIN)), None)


def _names(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of mappings, with the dotted path of its mapping."""
    listed = value if isinstance(value, list | tuple) else ()
    for name, inner in value.items() if isinstance(value, Mapping) else enumerate(listed):
        if isinstance(name, str):
            yield path, name
        yield from _names(inner, f"{path}.{name}" if path else str(name))


def _refuse(source: str, path: str, reason: str) -> None:
    raise ProgramError(
        f"{source}: {path} {reason}, and everyone with access to a compiled program can read it. Remove the secret "
        "from the examples or the tools' results, then compile again."
    )


def check_secrets(path: Path) -> None:
    """Raise ``ProgramError`` if a value of the compiled program in ``path`` looks like a secret."""
    refuse_secrets_in(_read(path), str(path))


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the compiled program in ``path``; raises as ``load_compiled`` does."""
    return _manifest(_read(path), path)


def _manifest(document: dict[str, Any], path: Path) -> Manifest:
    return _validate(Manifest, document["manifest"], "manifest", path)


def _validate(model: type[_Model], value: Any, location: str, path: Path) -> _Model:
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        location = ".".join([location, *map(str, detail["loc"])])
        raise ProgramError(
            f"{path}: {location} is invalid: {detail['msg']}. Compile again with: oneturn compile"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProgramError(f"There is no compiled program {path}. Create one with: oneturn compile") from None
    except OSError as error:
        raise ProgramError(f"{path} can't be read: {error.strerror}.") from None
    except ValueError as error:  # invalid JSON or UTF-8
        raise ProgramError(f"{path} is not JSON ({error}). Compile again with: oneturn compile") from None
    if not isinstance(document, dict) or {"manifest", "state"} - set(document):
        raise ProgramError(f"{path} lacks a manifest or a state. Compile again with: oneturn compile")
    _check_state(document["state"], path)
    return document


def _check_state(state: Any, path: Path) -> None:
    if not isinstance(state, dict):
        raise ProgramError(f"{path}: state isn't a mapping of predictors. Compile again with: oneturn compile")
    for name, saved in state.items():
        if not isinstance(saved, dict) or {"signature", "demos"} & set(saved):  # otherwise not a predictor
            _validate(_Predictor, saved, f"state.{name}", path)


def _check_drift(program: dspy.Module, state: dict[str, Any], manifest: Manifest, path: Path) -> None:
    compiled = manifest.interface
    if compiled is None:
        _log.warning("%s has no record of the signature and tools that it was compiled for; compile it again.", path)
    else:
        _check_own_fields(state, compiled, path)
        if drift := differences(compiled, interface_of(program)):
            lines = "\n".join(f"  - {difference}" for difference in drift)
            raise ProgramError(
                f"{path} was compiled for another program than this one:\n{lines}\nCompile again with: oneturn compile"
            )
    _check_fields(program, state, path)


def _check_own_fields(state: dict[str, Any], compiled: Interface, path: Path) -> None:
    for name in compiled.predictors.keys() & state.keys():
        shape = compiled.predictors[name]
        expected, saved = len(shape.inputs) + len(shape.outputs), len(state[name]["signature"]["fields"])
        if expected != saved:
            raise ProgramError(
                f"{path}: state.{name} has {saved} fields, but its manifest lists {expected}. "
                "Compile again with: oneturn compile"
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
