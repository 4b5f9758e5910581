"""Find rows of dev and test that a prompt repeats: a score on rows that the prompt quotes says little.

Rows are compared by the sequences of eight words that they share with the prompt, as contamination of training data is
measured (PaLM, Chowdhery et al. 2022: 8-grams; there a row is contaminated from 70% on). Half of a row's sequences are
enough here, because an instruction quotes parts of a question. Eight words in a row are rarely shared by chance: of the
support desk's 228 dev and test rows, none shares eight with the handbook or a training row; sixteen share five.
Sequences that also occur in train or in the uncompiled prompts prove nothing and are ignored, so that demos, which are
training rows, and questions made from one template never count.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from oneturn.agent import Agent
from oneturn.core.secrets import leaves
from oneturn.core.serialization import jsonable
from oneturn.errors import DataError, ProgramError

PROTECTED = ("dev", "test")
"""The splits whose rows no prompt may repeat."""
WORDS = 8
"""Words of a sequence; a row with fewer is compared as a whole."""
FEWEST = 6
"""Rows with fewer words, such as "Do you ship abroad?", are in many prompts by chance and aren't compared."""
SHARE = 0.5
"""The share of a row's sequences from which on it is repeated."""

_WORD = re.compile(r"\w+")
_Sequence = tuple[str, ...]
_DEMO = " demo "
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RepeatedRow:
    """A row that a prompt repeats.

    Attributes:
        row: the row's id, or its position in the split.
        split: the row's split.
        field: the field whose text is repeated.
        place: where in the prompts it is, such as ``step instructions`` or ``step demo 2``.
        share: the share of the field's word sequences that are in that place, 0 to 1.
        text: the field's text.
    """

    row: str
    split: str
    field: str
    place: str
    share: float
    text: str

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 80 else f"{self.text[:79]}…"
        return f"{self.row} ({self.split}), {self.field}, {self.share:.0%} of it in {self.place}: {text}"


class RowSequences:
    """The word sequences that rows of dev and test have of their own.

    Args:
        splits: the rows of the splits to protect, each a mapping of fields, by split.
        inputs: the names of the input fields.
        outputs: the names of the output fields.
        known: texts that prompts may repeat: the training rows, and the uncompiled prompts.
    """

    def __init__(
        self,
        splits: Mapping[str, Sequence[Mapping[str, Any]]],
        inputs: Sequence[str],
        outputs: Sequence[str],
        known: Iterable[str],
    ):
        self._inputs, self._outputs = inputs, outputs
        self._known_words = [_words(text) for text in known]
        self._known: dict[int, set[_Sequence]] = {}
        self._rows = [
            (str(row.get("id") or f"row {number}"), split, row)
            for split, rows in splits.items()
            for number, row in enumerate(rows, start=1)
        ]

    def repeated_in(self, instructions: Mapping[str, str], demos: Mapping[str, str]) -> list[RepeatedRow]:
        """Return the rows that prompts repeat, each once, at the place with the largest share.

        Args:
            instructions: texts that an LM wrote, by place; compared with inputs and outputs.
            demos: texts of worked examples, by place; compared with inputs only, because they quote what tools
                returned, and an answer may quote the same passage.
        """
        found: dict[tuple[str, str], RepeatedRow] = {}
        for texts, fields in ((instructions, (*self._inputs, *self._outputs)), (demos, self._inputs)):
            for place, text in texts.items():
                for repeated in self._repeated(place, _words(text), fields):
                    best = found.setdefault((repeated.split, repeated.row), repeated)
                    if repeated.share > best.share:
                        found[repeated.split, repeated.row] = repeated
        return list(found.values())

    def _repeated(self, place: str, words: Sequence[str], fields: Iterable[str]) -> Iterable[RepeatedRow]:
        prompt: dict[int, set[_Sequence]] = {}
        names = list(fields)
        for row, split, values in self._rows:
            for field in names:
                text = values.get(field)
                if not isinstance(text, str) or len(own_words := _words(text)) < FEWEST:
                    continue
                size = min(WORDS, len(own_words))
                own = _sequences(own_words, size) - self._known_sequences(size)
                shared = own & prompt.setdefault(size, _sequences(words, size))
                if own and len(shared) / len(own) >= SHARE:
                    yield RepeatedRow(row, split, field, place, len(shared) / len(own), text)

    def _known_sequences(self, size: int) -> set[_Sequence]:
        if size not in self._known:
            self._known[size] = {sequence for words in self._known_words for sequence in _sequences(words, size)}
        return self._known[size]


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _sequences(words: Sequence[str], size: int) -> set[_Sequence]:
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def repeated_rows(agent: Agent, state: Mapping[str, Any]) -> list[RepeatedRow]:
    """Return the rows of dev and test that a compiled program's instructions or demos repeat.

    Args:
        agent: provides the examples, and the uncompiled program, whose prompts may say anything.
        state: the compiled program's state, as DSPy dumps it.
    """
    uncompiled = agent.program(compiled=False)
    splits = {split: rows for split in PROTECTED if (rows := _rows(agent, split))}
    inputs = sorted({name for examples in splits.values() for example in examples for name in example.inputs()})
    outputs = sorted({*_text_fields(splits.values())} - set(inputs))
    known = [
        *_prompts(uncompiled.dump_state()).values(),
        *(_text(example.toDict()) for example in _rows(agent, "train")),
    ]
    sequences = RowSequences(
        {split: [example.toDict() for example in examples] for split, examples in splits.items()},
        inputs,
        outputs,
        known,
    )
    prompts = _prompts(state)
    demos = {place: text for place, text in prompts.items() if _DEMO in place}
    return sequences.repeated_in({place: text for place, text in prompts.items() if place not in demos}, demos)


def refuse_repeated_rows(rows: Sequence[RepeatedRow], what: str, override: str) -> None:
    """Refuse a program that repeats rows.

    Args:
        rows: the repeated rows.
        what: what isn't done, such as "The compiled program isn't saved".
        override: how to do it anyway.

    Raises:
        ProgramError: there are repeated rows; the message names them.
    """
    if rows:
        lines = "\n".join(f"  - {row}" for row in rows)
        raise ProgramError(
            f"{what}: its prompts repeat rows that it is measured on, so that their scores say little.\n{lines}\n"
            f"Choose another candidate, seed or recipe, or move the rows to train. {override}"
        )


def _rows(agent: Agent, split: str) -> list[dspy.Example]:
    try:
        return list(agent.examples(split))
    except DataError as error:  # an agent needs no test split
        _log.info("Prompts aren't compared with the rows of %s: %s", split, error)
        return []


def _text_fields(splits: Iterable[Sequence[dspy.Example]]) -> Iterator[str]:
    """Yield the fields that have text of several words."""
    for examples in splits:
        for example in examples:
            yield from (name for name, value in example.items() if isinstance(value, str) and " " in value.strip())


def _prompts(state: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a program's prompts by place: instructions and demos."""
    predictors = {"": state} if "signature" in state else state  # the state of a single predictor has no name
    prompts = {}
    for name, predictor in predictors.items():
        if isinstance(predictor, Mapping) and "signature" in predictor:
            prompts[f"{name} instructions".strip()] = predictor["signature"]["instructions"]
            for number, demo in enumerate(predictor.get("demos") or [], start=1):
                prompts[f"{name}{_DEMO}{number}".strip()] = _text(demo)
        elif isinstance(predictor, Mapping) and "runs" in predictor:  # a pool of demos
            prompts |= {f"{name}{_DEMO}{number}": _text(run) for number, run in enumerate(predictor["runs"], start=1)}
    return prompts


def _text(values: Any) -> str:
    return "\n".join(str(value) for _, _, value in leaves(jsonable(dict(values))))
