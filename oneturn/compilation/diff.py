"""Compare two compiled programs for review."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from oneturn.compilation.render import WIDTH, run_lines, title, truncate
from oneturn.core.text_diff import Paragraph, paragraphs, render_paragraph, words
from oneturn.programs.state import Manifest, read_compiled
from oneturn.programs.state.drift import differences

Demo = Mapping[str, Any]


@dataclass(frozen=True)
class DemoChange:
    """A demo that was added, removed or changed.

    Each line starts with a marker: ``-`` removed, ``+`` added, two spaces unchanged, ``~`` a long line with its changes
    marked.
    """

    kind: Literal["added", "removed", "changed"]
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class PredictorChange:
    """The changes in a predictor's prompt.

    Attributes:
        name: name of the predictor.
        instructions: the paragraphs of the instructions with their changes; empty if nothing changed.
        fields: changed field descriptions.
        demos: demos that were added, removed or changed.
        kept: number of unchanged demos.
        reordered: whether the order of the unchanged demos changed.
    """

    name: str
    instructions: tuple[Paragraph, ...]
    fields: tuple[Paragraph, ...]
    demos: tuple[DemoChange, ...]
    kept: int
    reordered: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.instructions or self.fields or self.demos or self.reordered)


@dataclass(frozen=True)
class Figure:
    """A figure of both programs; ``None`` if a program doesn't have it."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class ProgramDiff:
    """The changes between two compiled programs.

    Attributes:
        before: name of the first program.
        after: name of the second program.
        predictors: the changed prompts.
        figures: scores and usage on the development split, and the cost of the compile.
        origin: descriptions of changes in LM, recipe, seed, datasets, versions, signature and tools.
        comparable: whether the figures were measured on the same examples with the same LM.
    """

    before: str
    after: str
    predictors: tuple[PredictorChange, ...]
    figures: tuple[Figure, ...]
    origin: tuple[str, ...]
    comparable: bool

    @property
    def is_empty(self) -> bool:
        """Whether prompts and origin are unchanged."""
        return not (self.predictors or self.origin)


def diff(before: Path, after: Path, names: tuple[str, str] | None = None) -> ProgramDiff:
    """Compare two compiled programs.

    Args:
        before: file of the first program.
        after: file of the second program.
        names: names to show for the two; ``None`` for their paths.

    Raises:
        ProgramError: a file doesn't exist or isn't a compiled program.
    """
    (old, old_state), (new, new_state) = read_compiled(before), read_compiled(after)
    predictors = [
        _predictor(name, old_state.get(name) or {}, new_state.get(name) or {}, new if name in new_state else old)
        for name in {**old_state, **new_state}
        if name != "metadata"
    ]
    return ProgramDiff(
        *(names or (str(before), str(after))),
        predictors=tuple(change for change in predictors if not change.is_empty),
        figures=tuple(_figures(old, new)),
        origin=tuple(_origin(old, new)),
        comparable=old.lm == new.lm and old.dataset.get("dev") == new.dataset.get("dev"),
    )


def _predictor(name: str, old: Mapping[str, Any], new: Mapping[str, Any], manifest: Manifest) -> PredictorChange:
    before, after = _instructions(old), _instructions(new)
    inputs = _inputs(name, manifest)
    old_demos, new_demos = (side.get("demos") or side.get("runs") or [] for side in (old, new))  # runs of a pool
    removed, common_before = _split_by_presence(old_demos, new_demos)
    added, common_after = _split_by_presence(new_demos, old_demos)
    return PredictorChange(
        name=name,
        instructions=tuple(paragraphs(before, after)) if before != after else (),
        fields=tuple(_fields(old, new)),
        demos=tuple(_demos(removed, added, inputs)),
        kept=len(common_after),
        reordered=common_before != common_after,
    )


def _instructions(predictor: Mapping[str, Any]) -> str:
    return str(predictor.get("signature", {}).get("instructions", ""))


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Paragraph]:
    before, after = (
        {field["prefix"]: field["description"] for field in _signature_fields(side)} for side in (old, new)
    )
    for prefix in {**before, **after}:
        if before.get(prefix) != after.get(prefix):
            yield words(*(f"{prefix} {side[prefix]}" if prefix in side else "" for side in (before, after)))


def _signature_fields(predictor: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    fields: Sequence[Mapping[str, str]] = predictor.get("signature", {}).get("fields", [])
    return fields


def _inputs(name: str, manifest: Manifest) -> list[str]:
    shape = manifest.interface.predictors.get(name) if manifest.interface is not None else None
    return [field for field in shape.inputs if field != "trajectory"] if shape is not None else []


def _split_by_presence(demos: Sequence[Demo], others: Sequence[Demo]) -> tuple[list[Demo], list[str]]:
    """Split demos into those missing in ``others`` and the identities of those in both; duplicates are counted."""
    left = Counter(map(_identity, others))
    only_here, common = [], []
    for demo in demos:
        if left[identity := _identity(demo)]:
            left[identity] -= 1
            common.append(identity)
        else:
            only_here.append(demo)
    return only_here, common


def _demos(removed: Sequence[Demo], added: Sequence[Demo], inputs: Sequence[str]) -> Iterator[DemoChange]:
    left: dict[str, list[Demo]] = {}
    for demo in removed:
        left.setdefault(_key(demo, inputs), []).append(demo)
    for demo in added:
        if before := left.get(_key(demo, inputs)):
            yield DemoChange("changed", title(demo), tuple(_changed(run_lines(before.pop(0)), run_lines(demo))))
        else:
            yield DemoChange("added", title(demo), tuple(f"+ {truncate(line)}" for line in run_lines(demo)))
    for demo in (demo for demos in left.values() for demo in demos):
        yield DemoChange("removed", title(demo), tuple(f"- {truncate(line)}" for line in run_lines(demo)))


def _changed(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for operation, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            yield from (f"  {truncate(line)}" for line in old[a:b])
            continue
        for before, after in zip_longest(old[a:b], new[c:d]):
            if before is not None and after is not None and max(len(before), len(after)) > WIDTH:
                yield f"~ {render_paragraph(words(before, after))}"
                continue
            yield from (f"- {truncate(line)}" for line in (before,) if line is not None)
            yield from (f"+ {truncate(line)}" for line in (after,) if line is not None)


def _key(demo: Demo, inputs: Sequence[str]) -> str:
    """The inputs of a demo: two demos with the same inputs are one changed demo."""
    names = [name for name in inputs if name in demo] or [name for name in demo if name != "augmented"][:1]
    return _identity({name: demo[name] for name in names})


def _identity(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_FIGURES = {
    "score": "score",
    "score_low": "score, lower bound",
    "score_high": "score, upper bound",
    "lm_calls_per_row": "LM calls per question",
    "prompt_tokens_per_row": "prompt tokens per question",
    "completion_tokens_per_row": "completion tokens per question",
    "seconds_per_row": "seconds per question",
}
_SPEND = {"lm_calls": "LM calls to compile", "seconds": "seconds to compile", "cost": "US dollars to compile"}


def _figures(old: Manifest, new: Manifest) -> Iterator[Figure]:
    measured = [manifest.scores.get("after", {}) for manifest in (old, new)]
    for sides, names in ((measured, _FIGURES), ([old.spend, new.spend], _SPEND)):
        for key, name in names.items():
            before, after = (side.get(key) for side in sides)
            if before is not None or after is not None:
                yield Figure(name, before, after)


def _origin(old: Manifest, new: Manifest) -> Iterator[str]:
    for name in ("recipe", "lm", "seed", "stopped"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{'LM' if name == 'lm' else name}: {before} → {after}"
    for split in {**old.dataset, **new.dataset}:
        before, after = old.dataset.get(split), new.dataset.get(split)
        if before != after:
            yield f"{split} examples: {_short_hash(before)} → {_short_hash(after)}"
    for package in {**old.versions, **new.versions}:
        before, after = old.versions.get(package), new.versions.get(package)
        if before != after:
            yield f"{package}: {before} → {after}"
    if old.interface is not None and new.interface is not None:
        yield from differences(old.interface, new.interface)


def _short_hash(sha256: str | None) -> str:
    return "none" if sha256 is None else sha256[:12]
