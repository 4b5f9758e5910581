"""A compiled state and a program that has changed since: what is said, and what the LM then reads."""

from __future__ import annotations

import json
import logging
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
    """Tools of the same names that are told, or called, in another way."""

    @staticmethod
    def price(item: str) -> str:
        """Look up the price of an item, VAT included."""
        return "5"


class Typed:
    @staticmethod
    def price(item: int) -> str:
        """Look up a price."""
        return "5"


Build = Callable[..., Any]


def manifest(program: dspy.Module) -> Manifest:
    figures: dict[str, Any] = {"scores": {}, "spend": {}, "versions": {}, "dataset": {}}
    return Manifest(recipe="r", lm="l", seed=0, created="2026", interface=interface_of(program), **figures)


def saved(path: Path, program: Any, instructions: str | None = None, demos: Any = ()) -> Path:
    """``program`` as an optimizer would leave it."""
    made = manifest(program)
    for name, predictor in program.named_predictors():
        if instructions is not None and "extract" not in name:
            predictor.signature = predictor.signature.with_instructions(instructions)
        predictor.demos = list(demos)
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


def refusal(program: dspy.Module, path: Path, **options: Any) -> list[str]:
    before = json.dumps(program.dump_state(), default=str)
    with pytest.raises(ProgramError) as caught:
        load_compiled(program, path, **options)
    assert json.dumps(program.dump_state(), default=str) == before, "the program is as it was"
    first, *lines = str(caught.value).split("\n")
    assert first == f"{path} was compiled for another program than this one:"
    return lines


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
     ["output 'answer' was string, it is \"yes\" | \"no\""]),
]  # fmt: skip


@pytest.mark.parametrize("build", [react, plain])
@pytest.mark.parametrize(("signature", "words"), FIELDS)
@pytest.mark.parametrize("on_drift", ["fail", "splice"])
def test_other_fields_are_refused_whatever_was_asked_for(
    build: Build, signature: Any, words: list[str], on_drift: str, tmp_path: Path
):
    path = saved(tmp_path / "p.json", build())
    *told, hint = refusal(build(signature), path, on_drift=on_drift)
    assert told == [f"  - {line}" for line in words]
    assert hint.startswith("Compile it again")
    assert "compiled_on_drift" not in hint


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
     "output 'lines' (object) has another schema: properties.price.title 'Price' was added, properties.price.type 'number' was added, required.1 'price' was added"),  # noqa: E501
    ({"signature": listed(int, ge=1)}, {"signature": listed(int, ge=2)},
     "output 'lines' (integer) has another schema: minimum was 1, it is 2"),
    ({"tools": [most]}, {"tools": [more]},
     "the tool most: its argument 'count' (integer) has another schema: default was 1, it is 5"),
]  # fmt: skip


@pytest.mark.parametrize("build", [react, plain])
@pytest.mark.parametrize(("before", "after", "words"), INSIDE, ids=["model", "bound", "default"])
def test_a_change_inside_a_type_is_told(build: Build, before: Any, after: Any, words: str, tmp_path: Path):
    path = saved(tmp_path / "p.json", build(**before))
    assert drift_of(build(**after), path) == [words]


MENDABLE = [
    ({"signature": reworded}, "the description of output 'answer' was 'in a few words', it is 'one word'"),
    ({"signature": Question.with_instructions("Answer from the shop's books.\n\nBe brief.")},
     "the declared instructions were changed: Answer from the shop's [-records.-]{+books.+}"),
    ({"tools": [price, stock]}, "the tool stock(item: string) was added"),
    ({"tools": []}, "the tool price(item: string) was removed"),
    ({"tools": [Changed.price]},
     "the description of the tool price was 'Look up a price.', it is 'Look up the price of an item, VAT included.'"),
    ({"tools": [Typed.price]}, "the tool price: its argument 'item' was string, it is integer"),
]  # fmt: skip


@pytest.mark.parametrize("build", [react, plain])
@pytest.mark.parametrize(("change", "words"), MENDABLE, ids=[words[:40] for _, words in MENDABLE])
def test_a_change_that_can_be_spliced_is_refused_unless_asked_for(
    build: Build, change: dict[str, Any], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = saved(tmp_path / "p.json", build())
    assert drift_of(build(**change), path) == [words]
    told, hint = refusal(build(**change), path)
    assert told == f"  - {words}"
    assert "compiled_on_drift: splice" in hint
    program = build(**change)
    with caplog.at_level(logging.WARNING, logger="oneturn"):
        load_compiled(program, path, on_drift="splice")
    assert words in caplog.text
    assert read(program) == read(build(**change)), "what the optimizer had left alone is the program's own"


def test_a_step_without_its_thought_is_another_program(tmp_path: Path):
    path = saved(tmp_path / "p.json", react())
    assert refusal(react(thoughts=False), path)[0] == "  - predictor 'step': the field 'thought' was removed"


LISTED = "Be quick.\n\n(1) price, whose description is <desc>PRICES, nothing else.</desc>. It takes arguments {'item': {'type': 'string'}}.\n(2) finish. It takes arguments {}.\nBe exact."  # noqa: E501


def test_a_new_tool_gets_its_line_in_rewritten_instructions(tmp_path: Path):
    path = saved(tmp_path / "p.json", plain(), instructions=LISTED)
    program = plain(tools=[price, stock])
    load_compiled(program, path, on_drift="splice")
    text = read(program)
    lines = text[text.index("Be quick.") : text.index("Be exact.")].splitlines()
    assert [line.strip()[:16] for line in lines if line.strip().startswith("(")] == [
        "(1) price, whose",
        "(2) stock, whose",
        "(3) finish. It t",
    ]
    assert "PRICES, nothing else." in text, "what the optimizer wrote of a tool that hasn't changed stays"
    assert "Count what is in stock." in text


def test_a_tool_that_is_gone_loses_its_line(tmp_path: Path):
    path = saved(tmp_path / "p.json", plain(tools=[stock, price]), instructions=LISTED)
    program = plain(tools=[stock])
    load_compiled(program, path, on_drift="splice")
    assert "PRICES" not in read(program)
    assert "(1) stock" in read(program)
    assert "(2) finish" in read(program)


def test_a_changed_tool_gets_the_new_line(tmp_path: Path):
    path = saved(tmp_path / "p.json", plain(), instructions=LISTED)
    program = plain(tools=[Changed.price])
    load_compiled(program, path, on_drift="splice")
    assert "PRICES" not in read(program)
    assert "VAT included" in read(program)


def test_instructions_without_a_list_get_one(tmp_path: Path):
    path = saved(tmp_path / "p.json", plain(), instructions="Use price to answer.")
    program = plain(tools=[price, stock])
    load_compiled(program, path, on_drift="splice")
    assert "(2) stock, whose description is <desc>Count what is in stock.</desc>" in read(program)


def test_what_an_optimizer_wrote_of_a_tool_that_is_gone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = saved(tmp_path / "p.json", react(), instructions="Ask price first.")
    load_compiled(react(tools=[stock]), path, on_drift="splice")
    assert "the instructions still mention 'price', which is no tool any more" in caplog.text


def test_a_reworded_declaration_does_not_replace_what_an_optimizer_wrote(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = saved(tmp_path / "p.json", react(), instructions="Compiled.")
    program = react(Question.with_instructions("Answer at once."))
    load_compiled(program, path, on_drift="splice")
    assert "Compiled." in read(program)
    assert "instructions that the optimizer wrote are kept" in caplog.text


def step_demo(tool: str, **args: Any) -> dict[str, Any]:
    turn = {"thought": "t", "tool_call": {"name": tool, "args": args}, "observation": "4"}
    return {
        "question": f"{tool}?",
        "trajectory": [turn],
        "thought": "",
        "tool_call": {"name": "finish", "args": {"answer": "4"}},
    }


def plain_demo(tool: str) -> dict[str, Any]:
    return {"question": f"{tool}?", "trajectory": f"[[ ## tool_name_0 ## ]]\n{tool}\n", "next_tool_name": "finish"}


def xml_demo(tool: str) -> dict[str, Any]:
    """As dspy.XMLAdapter writes a trajectory."""
    return {**plain_demo(tool), "trajectory": f"<tool_name_0>\n{tool}\n</tool_name_0>"}


@pytest.mark.parametrize(("build", "demo"), [(react, step_demo), (plain, plain_demo), (plain, xml_demo)])
@pytest.mark.parametrize("tools", [[stock], [stock, Typed.price]])
def test_demos_that_call_a_tool_as_it_no_longer_is_are_left_out(
    build: Build, demo: Any, tools: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = saved(tmp_path / "p.json", build(tools=[price, stock]), demos=[demo("price"), demo("stock")])
    program = build(tools=tools)
    load_compiled(program, path, on_drift="splice")
    assert "1 of 2 demos are left out: they call price as it was" in caplog.text
    text = read(program)
    assert "stock?" in text
    assert "price?" not in text


def dotted(description: str) -> dspy.Tool:
    """A tool as an MCP server may name it."""
    return dspy.Tool(price, name="shop.price", desc=description)


def test_a_tool_with_a_dot_in_its_name_is_brought_up_to_date(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    listed = LISTED.replace("(1) price", "(1) shop.price") + "\nAsk shop.price first."
    path = saved(tmp_path / "p.json", plain(tools=[dotted("A.")]), listed, [plain_demo("shop.price")])
    program = plain(tools=[dotted("B.")])
    load_compiled(program, path, on_drift="splice")
    assert "(1) shop.price, whose description is <desc>B.</desc>" in read(program)
    program = plain(tools=[stock])
    load_compiled(program, path, on_drift="splice")
    assert "shop.price?" not in read(program)
    assert "1 of 1 demos are left out: they call shop.price as it was" in caplog.text
    assert "the instructions still mention 'shop.price', which is no tool any more" in caplog.text


def test_the_tool_names_of_react_v2_are_brought_up_to_date(tmp_path: Path):
    def v2(*tools: Any) -> dspy.ReActV2:
        return dspy.ReActV2(Question, tools=list(tools))

    path = saved(tmp_path / "p.json", v2(price), instructions="Hurry.\nThe available tools are: `price`, `submit`.")
    program = v2(price, stock)
    load_compiled(program, path, on_drift="splice")
    assert program.react.signature.instructions == "Hurry.\nThe available tools are: `price`, `stock`, `submit`."


def test_fields_in_another_order_keep_their_own_descriptions(tmp_path: Path):
    path = saved(tmp_path / "p.json", dspy.Predict("a, b -> c"))
    document = json.loads(path.read_text())
    for field, told in zip(document["state"]["self"]["signature"]["fields"], ("of a", "of b", "of c"), strict=True):
        field["description"] = told
    path.write_text(json.dumps(document))
    assert refusal(dspy.Predict("b, a -> c"), path)[0] == "  - the fields are in another order: a, b, c became b, a, c"
    program = dspy.Predict("b, a -> c")
    load_compiled(program, path, on_drift="splice")
    told = {name: field.json_schema_extra["desc"] for name, field in program.signature.fields.items()}
    assert told == {"a": "of a", "b": "of b", "c": "of c"}


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
    assert "doesn't say which signature and tools" in caplog.text
    with pytest.raises(ProgramError, match="compiled with 4 fields, the program's has 5"):
        load_compiled(react(with_language), path)
