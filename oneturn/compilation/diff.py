"""What changed between two compiled programs, as a person reviews it."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from oneturn.compilation.render import WIDTH, cut, run_lines, title
from oneturn.core.text_diff import Paragraph, paragraphs, render_paragraph, words
from oneturn.programs.state import Manifest, read_compiled
from oneturn.programs.state.drift import differences

Demo = Mapping[str, Any]


@dataclass(frozen=True)
class DemoChange:
    """A demo that came, went, or is another run than before; its lines begin with what became of them.

    ``-`` went, ``+`` came, two spaces stayed, ``~`` is a long line with what changed in it marked.
    """

    kind: Literal["added", "removed", "changed"]
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class PredictorChange:
    """What changed in a predictor's prompt.

    Attributes:
        name: the predictor's.
        instructions: their paragraphs, each with what changed in it; empty if nothing did.
        fields: how the descriptions of fields changed.
        demos: those that came, went or changed.
        kept: how many are the same.
        reordered: whether those that stayed stand in another order.
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
    """A figure of both programs; ``None`` where one doesn't have it."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class ProgramDiff:
    """What changed between two compiled programs.

    Attributes:
        before: what the first is called.
        after: what the second is called.
        predictors: the prompts that changed.
        figures: what each was measured to be worth on the development split, and what compiling it cost.
        origin: what else changed: LM, recipe, seed, datasets, versions, signature and tools, in words.
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
        """Whether prompts and origin are the same."""
        return not (self.predictors or self.origin)


def diff(before: Path, after: Path, names: tuple[str, str] | None = None) -> ProgramDiff:
    """Compare two compiled programs.

    Args:
        before: a compiled program's file.
        after: another.
        names: what they are called; their paths if not said.

    Raises:
        ProgramError: one of them isn't there, or isn't a compiled program.
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
    old_demos, new_demos = old.get("demos", []), new.get("demos", [])
    gone, kept_before = _apart(old_demos, new_demos)
    come, kept_after = _apart(new_demos, old_demos)
    return PredictorChange(
        name=name,
        instructions=tuple(paragraphs(before, after)) if before != after else (),
        fields=tuple(_fields(old, new)),
        demos=tuple(_demos(gone, come, inputs)),
        kept=len(kept_after),
        reordered=kept_before != kept_after,
    )


def _instructions(predictor: Mapping[str, Any]) -> str:
    return str(predictor.get("signature", {}).get("instructions", ""))


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Paragraph]:
    before, after = ({field["prefix"]: field["description"] for field in _all_fields(side)} for side in (old, new))
    for prefix in {**before, **after}:
        if before.get(prefix) != after.get(prefix):
            yield words(*(f"{prefix} {side[prefix]}" if prefix in side else "" for side in (before, after)))


def _all_fields(predictor: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    found: Sequence[Mapping[str, str]] = predictor.get("signature", {}).get("fields", [])
    return found


def _inputs(name: str, manifest: Manifest) -> list[str]:
    shape = manifest.interface.predictors.get(name) if manifest.interface is not None else None
    return [field for field in shape.inputs if field != "trajectory"] if shape is not None else []


def _apart(demos: Sequence[Demo], others: Sequence[Demo]) -> tuple[list[Demo], list[str]]:
    """The demos that the others lack, and those that they have too; one that stands there twice is had twice."""
    left = Counter(map(_identity, others))
    lacking, kept = [], []
    for demo in demos:
        if left[identity := _identity(demo)]:
            left[identity] -= 1
            kept.append(identity)
        else:
            lacking.append(demo)
    return lacking, kept


def _demos(gone: Sequence[Demo], come: Sequence[Demo], inputs: Sequence[str]) -> Iterator[DemoChange]:
    left: dict[str, list[Demo]] = {}
    for demo in gone:
        left.setdefault(_key(demo, inputs), []).append(demo)
    for demo in come:
        if before := left.get(_key(demo, inputs)):
            yield DemoChange("changed", title(demo), tuple(_changed(run_lines(before.pop(0)), run_lines(demo))))
        else:
            yield DemoChange("added", title(demo), tuple(f"+ {cut(line)}" for line in run_lines(demo)))
    for demo in (demo for demos in left.values() for demo in demos):
        yield DemoChange("removed", title(demo), tuple(f"- {cut(line)}" for line in run_lines(demo)))


def _changed(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for operation, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            yield from (f"  {cut(line)}" for line in old[a:b])
            continue
        for before, after in zip_longest(old[a:b], new[c:d]):
            if before is not None and after is not None and max(len(before), len(after)) > WIDTH:
                yield f"~ {render_paragraph(words(before, after))}"
                continue
            yield from (f"- {cut(line)}" for line in (before,) if line is not None)
            yield from (f"+ {cut(line)}" for line in (after,) if line is not None)


def _key(demo: Demo, inputs: Sequence[str]) -> str:
    """What a demo is about: the same question worked in another way is a changed demo."""
    known = [name for name in inputs if name in demo] or [name for name in demo if name != "augmented"][:1]
    return _identity({name: demo[name] for name in known})


def _identity(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_FIGURES = {
    "score": "score",
    "score_low": "score, lower bound",
    "score_high": "score, upper bound",
    "lm_calls_per_row": "LM calls a question",
    "prompt_tokens_per_row": "tokens read a question",
    "completion_tokens_per_row": "tokens written a question",
    "seconds_per_row": "seconds a question",
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
            yield f"{'LM' if name == 'lm' else name}: {before} became {after}"
    for split in {**old.dataset, **new.dataset}:
        before, after = old.dataset.get(split), new.dataset.get(split)
        if before != after:
            yield f"the {split} examples are others: {_short(before)} became {_short(after)}"
    for package in {**old.versions, **new.versions}:
        before, after = old.versions.get(package), new.versions.get(package)
        if before != after:
            yield f"{package}: {before} became {after}"
    if old.interface is not None and new.interface is not None:
        yield from (difference.words for difference in differences(old.interface, new.interface))


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else sha256[:12]
