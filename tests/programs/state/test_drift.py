"""A compiled program is loaded only into the program that it was compiled for; each difference is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import pytest

import oneturn
from oneturn.errors import ProgramError
from oneturn.programs.state import Manifest, drift_of, load_compiled, save_compiled
from oneturn.programs.state.interface import Interface, interface_of
from oneturn.testing import ScriptedLM, finish, sections


class Question(dspy.Signature):
    """Answer from the shop's records.

    Be brief.
    """

    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="in a few words")


def price(item: str) -> str:
    """Look up a price."""
    return "4"


def stock(item: str) -> int:
    """Count what is in stock."""
    return 7


class Changed:
    """A tool of the same name with another description."""

    @staticmethod
    def price(item: str) -> str:
        """Look up the price of an item, VAT included."""
        return "5"


class Typed:
    """A tool of the same name with another argument type."""

    @staticmethod
    def price(item: int) -> str:
        """Look up a price."""
        return "5"


Build = Callable[..., Any]


def manifest(program: dspy.Module) -> Manifest:
    figures: dict[str, Any] = {"scores": {}, "spend": {}, "versions": {}, "dataset": {}}
    return Manifest(recipe="r", lm="l", seed=0, created="2026", interface=interface_of(program), **figures)


def saved(path: Path, program: Any, instructions: str | None = None) -> Path:
    """Save ``program`` as an optimizer would leave it."""
    made = manifest(program)
    for name, predictor in program.named_predictors():
        if instructions is not None and "extract" not in name:
            predictor.signature = predictor.signature.with_instructions(instructions)
    save_compiled(program, made, path)
    return path


def react(signature: Any = Question, tools: Any = (price,), **options: Any) -> oneturn.ReAct:
    return oneturn.ReAct(signature, tools=tools, **options)


def plain(signature: Any = Question, tools: Any = (price,)) -> dspy.ReAct:
    return dspy.ReAct(signature, tools=list(tools))


def read(program: Any) -> str:
    """What the LM reads of it first."""
    if isinstance(program, oneturn.ReAct):
        with ScriptedLM(finish(answer="x")) as lm, dspy.context(lm=lm):
            program(question="Tea?")
    else:
        step = sections(next_thought="t", next_tool_name="finish", next_tool_args={})
        script = (step, sections(reasoning="r", answer="x"))
        with ScriptedLM(*script) as lm, dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            program(question="Tea?")
    return lm.requests[0].text


def refusal(program: dspy.Module, path: Path) -> list[str]:
    """Return the lines of the error that name what has changed."""
    before = json.dumps(program.dump_state(), default=str)
    with pytest.raises(ProgramError) as caught:
        load_compiled(program, path)
    assert json.dumps(program.dump_state(), default=str) == before, "the program is as it was"
    first, *lines, last = str(caught.value).split("\n")
    assert first == f"{path} was compiled for another program than this one:"
    assert last == "Compile again with: oneturn compile"
    return [line.removeprefix("  - ") for line in lines]


@pytest.mark.parametrize("build", [react, plain])
def test_the_same_program_loads(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = saved(tmp_path / "p.json", build(), instructions="Compiled.")
    program = build()
    load_compiled(program, path)
    assert "Compiled." in read(program)
    assert drift_of(build(), path) == []
    assert not caplog.records


with_language = Question.append("language", dspy.InputField(), type_=str)
reworded = Question.with_updated_fields("answer", desc="one word")
FIELDS = [
    (with_language, ["input 'language' (string) was added"]),
    (Question.append("sure", dspy.OutputField(), type_=bool), ["output 'sure' (boolean) was added"]),
    (Question.delete("answer").append("price", dspy.OutputField(), type_=int),
     ["output 'answer' (string) was removed", "output 'price' (integer) was added"]),
    (Question.with_updated_fields("answer", type_=Literal["yes", "no"]),
     ["output 'answer' was string, now is \"yes\" | \"no\""]),
]  # fmt: skip


@pytest.mark.parametrize("build", [react, plain])
@pytest.mark.parametrize(("signature", "words"), FIELDS)
def test_changed_fields_are_refused(build: Build, signature: Any, words: list[str], tmp_path: Path):
    path = saved(tmp_path / "p.json", build())
    assert refusal(build(signature), path) == drift_of(build(signature), path) == words


Line: Any = pydantic.create_model("Line", item=(str, ...))
Priced: Any = pydantic.create_model("Line", item=(str, ...), price=(float, ...))


def listed(line: Any, **bounds: Any) -> Any:
    return Question.append("lines", dspy.OutputField(**bounds), type_=line)


def most(item: str, count: int = 1) -> str:
    """Look up prices."""
    return "4"


def more(item: str, count: int = 5) -> str:
    """Look up prices."""
    return "4"


more.__name__ = "most"
INSIDE = [
    ({"signature": listed(Line)}, {"signature": listed(Priced)},
     "output 'lines' (object) has a changed schema: properties.price.title 'Price' was added, properties.price.type 'number' was added, required.1 'price' was added"),  # noqa: E501
    ({"signature": listed(int, ge=1)}, {"signature": listed(int, ge=2)},
     "output 'lines' (integer) has a changed schema: minimum was 1, now is 2"),
    ({"tools": [most]}, {"tools": [more]},
     "the tool most: its argument 'count' (integer) has a changed schema: default was 1, now is 5"),
]  # fmt: skip


@pytest.mark.parametrize("build", [react, plain])
@pytest.mark.parametrize(("before", "after", "words"), INSIDE, ids=["model", "bound", "default"])
def test_a_change_inside_a_type_is_named(build: Build, before: Any, after: Any, words: str, tmp_path: Path):
    path = saved(tmp_path / "p.json", build(**before))
    assert refusal(build(**after), path) == drift_of(build(**after), path) == [words]


REWORDED = [
    ({"signature": reworded}, "the description of output 'answer' was 'in a few words', now is 'one word'"),
    ({"signature": Question.with_instructions("Answer from the shop's books.\n\nBe brief.")},
     "the declared instructions were changed: Answer from the shop's [-records.-]{+books.+}"),
    ({"tools": [price, stock]}, "the tool stock(item: string) was added"),
    ({"tools": []}, "the tool price(item: string) was removed"),
    ({"tools": [Changed.price]},
     "the description of the tool price was 'Look up a price.', now is 'Look up the price of an item, VAT included.'"),
    ({"tools": [Typed.price]}, "the tool price: its argument 'item' was string, now is integer"),
]  # fmt: skip


@pytest.mark.parametrize("build", [react, plain])
@pytest.mark.parametrize(("change", "words"), REWORDED, ids=[words[:40] for _, words in REWORDED])
def test_changed_tools_and_descriptions_are_refused(build: Build, change: dict[str, Any], words: str, tmp_path: Path):
    path = saved(tmp_path / "p.json", build())
    assert refusal(build(**change), path) == drift_of(build(**change), path) == [words]


def test_a_step_without_its_thought_is_another_program(tmp_path: Path):
    path = saved(tmp_path / "p.json", react())
    assert refusal(react(thoughts=False), path)[0] == "predictor 'step': the field 'thought' was removed"


def test_the_order_of_the_fields_is_part_of_the_signature(tmp_path: Path):
    path = saved(tmp_path / "p.json", dspy.Predict("a, b -> c"))
    assert refusal(dspy.Predict("b, a -> c"), path) == ["the order of the fields changed: a, b, c became b, a, c"]


def test_the_hashes_are_those_of_signature_and_tools():
    hashes = [(found.signature_sha256, found.tools_sha256) for found in map(interface_of, (
        react(), react(), react(tools=[price, stock]), react(tools=[stock, price]), react(reworded),
    ))]  # fmt: skip
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3], "the order of tools is no difference"
    assert hashes[0][0] == hashes[2][0] != hashes[4][0]
    assert hashes[0][1] == hashes[4][1] != hashes[2][1]


def test_an_interface_is_read_back_as_it_was_written():
    found = interface_of(react())
    assert Interface.model_validate_json(found.model_dump_json()) == found


def test_a_file_of_an_earlier_version_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = saved(tmp_path / "p.json", react(), instructions="Compiled.")
    document = json.loads(path.read_text())
    del document["manifest"]["interface"]
    path.write_text(json.dumps(document))
    program = react()
    load_compiled(program, path)
    assert "Compiled." in read(program)
    assert "has no record of the signature and tools" in caplog.text
    with pytest.raises(ProgramError, match="compiled with 4 fields, the program's has 5"):
        load_compiled(react(with_language), path)
