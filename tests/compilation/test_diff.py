"""The readable diff of two compiled programs."""

from __future__ import annotations

import copy
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

import oneturn
from oneturn.cli import app
from oneturn.compilation.diff import diff
from oneturn.compilation.diff_report import report
from oneturn.compilation.render import format_prompts
from oneturn.core.text_diff import paragraphs, render_paragraph, words
from oneturn.errors import ProgramError
from oneturn.programs.state import Manifest, save_compiled
from oneturn.programs.state.artifact_sources import compiled_file, uncompiled_file
from oneturn.programs.state.interface import interface_of

INSTRUCTIONS = "Answer a question about prices.\n\nLook it up first.\nThen answer.\n\nBe brief."


def price(item: str) -> str:
    """Look up a price."""
    return "4"


def demo(question: str, item: str = "tea", answer: str = "4") -> dict[str, Any]:
    call = {"name": "price", "args": {"item": item}}
    return {
        "augmented": True,
        "question": question,
        "trajectory": [{"thought": None, "tool_call": call, "observation": "4 euros " + "and more " * 20}],
        "tool_call": {"name": "finish", "args": {"answer": answer}},
    }


def document() -> dict[str, Any]:
    program = oneturn.ReAct("question -> answer", tools=[price], thoughts=False)
    field = {"prefix": "Question:", "description": "${question}"}
    manifest = Manifest(
        recipe="scripted",
        lm="local/a",
        seed=0,
        created="2026-01-01",
        versions={"dspy": "3.4.1"},
        dataset={"train": "a" * 64, "dev": "b" * 64},
        scores={"after": {"score": 0.5, "lm_calls_per_row": 2.5}},
        spend={"lm_calls": 100.0},
        interface=interface_of(program),
    )
    signature = {"instructions": INSTRUCTIONS, "fields": [field]}
    state = {"step": {"signature": signature, "demos": [demo("Tea?"), demo("Milk?"), demo("Rum?")], "lm": None}}
    return {"manifest": manifest.model_dump(), "state": state}


def rendered(folder: Path, changed: dict[str, Any], marks: bool = True) -> str:
    for name, content in (("a.json", document()), ("b.json", changed)):
        (folder / name).write_text(json.dumps(content))
    file = io.StringIO()
    console = Console(file=file, width=160)
    for part in report(diff(folder / "a.json", folder / "b.json", ("a", "b")), marks=marks):
        console.print(part, soft_wrap=True)
    return file.getvalue()


def test_nothing_changed(tmp_path: Path):
    text = rendered(tmp_path, document())
    assert text.startswith("a → b\nThe prompts and their origin are the same.\n")


def test_instructions_are_shown_word_by_word_in_their_paragraph(tmp_path: Path):
    changed = document()
    changed["state"]["step"]["signature"]["instructions"] = (
        INSTRUCTIONS.replace("it up first", "the price up") + "\n\nIn euros."
    )
    text = rendered(tmp_path, changed)
    assert (
        "Instructions\n"
        "  … 1 paragraph unchanged\n"
        "  Look [-it up first.-]{+the price up.+}\n"
        "  Then answer.\n"
        "  … 1 paragraph unchanged\n"
        "  {+In euros.+}\n"
    ) in text
    assert "Demos: 3 the same\n" in text
    assert "{+" not in rendered(tmp_path, changed, marks=False)


def test_changed_empty_lines_are_reported(tmp_path: Path):
    changed = document()
    changed["state"]["step"]["signature"]["instructions"] = INSTRUCTIONS.replace("prices.\n", "prices.\n\n") + "\n"
    assert (
        "Instructions\n  … 3 paragraphs unchanged\n  only the empty lines between or around them changed\n"
    ) in rendered(tmp_path, changed)


def test_page_is_written_to_the_given_path_with_markup_escaped(tmp_path: Path):
    changed = document()
    changed["state"]["step"]["demos"][0]["question"] = "<script>alert(1)</script>?"
    for name, content in (("a.json", document()), ("b.json", changed)):
        (tmp_path / name).write_text(json.dumps(content))
    page = tmp_path / "new" / "review.html"
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    done = CliRunner().invoke(app, ["diff", *files, "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "&lt;script&gt;alert(1)" in page.read_text(encoding="utf-8")
    assert "<script>" not in page.read_text(encoding="utf-8")
    missing = CliRunner().invoke(app, ["diff", files[0], str(tmp_path / "c.json")])
    assert missing.exit_code == 1


def test_an_uncompiled_program_has_the_figures_that_the_compile_measured_of_it(tmp_path: Path):
    compiled = document()
    compiled["manifest"]["scores"]["before"] = {"score": 0.25, "lm_calls_per_row": 3.5}
    (tmp_path / "a.json").write_text(json.dumps(compiled))
    (tmp_path / "empty").mkdir()
    program = oneturn.ReAct("question -> answer", tools=[price], thoughts=False)
    changes = diff(uncompiled_file(program, tmp_path / "a.json", tmp_path / "empty"), tmp_path / "a.json")
    assert [(figure.name, figure.before, figure.after) for figure in changes.figures[:2]] == [
        ("score", 0.25, 0.5),
        ("LM calls per question", 3.5, 2.5),
    ]
    assert [change.kind for change in changes.predictors[0].demos] == ["added"] * 3
    assert changes.origin == ("recipe: uncompiled → scripted",)


def test_demos_are_short_runs(tmp_path: Path):
    changed = document()
    changed["state"]["step"]["demos"] = [demo("Rum?"), demo("Tea?", item="green tea"), demo("Gin?")]
    text = rendered(tmp_path, changed)
    assert "Demos: 1 the same, 1 added, 1 removed, 1 changed\n" in text
    assert '  changed: Tea?\n      question: Tea?\n    -   price(item="tea")\n    +   price(item="green tea")\n' in text
    assert '  added: Gin?\n    + question: Gin?\n    +   price(item="tea")\n    +     = 4 euros and more' in text
    assert "  removed: Milk?\n    - question: Milk?\n" in text
    assert all(len(line) < 150 for line in text.splitlines()), "what is long is cut"
    assert "characters)" in text


def test_demos_of_a_program_are_the_same_runs_in_its_prompts():
    program = oneturn.ReAct("question -> answer", tools=[price], thoughts=False)
    program.step.demos = [dspy.Example(**demo("Tea?"))]
    text = format_prompts(program)
    assert text.startswith("# step\n\n")
    assert '## Demo 1\n\n    question: Tea?\n      price(item="tea")\n        = 4 euros and more' in text
    assert '      finish(answer="4")\n' in text


def test_change_late_in_a_long_line_is_shown(tmp_path: Path):
    changed = document()
    changed["state"]["step"]["demos"][0]["trajectory"][0]["observation"] += "and VAT"
    line = next(line for line in rendered(tmp_path, changed).splitlines() if line.startswith("    ~ "))
    assert line.startswith("    ~ …")
    assert line.endswith("VAT+}")
    assert len(line) < 60


def test_each_demo_of_a_repeated_question_is_listed(tmp_path: Path):
    """Optimizers may select a row twice, or have two runs of one question."""
    twice = [demo("Tea?"), demo("Tea?", item="green tea"), demo("Rum?"), demo("Rum?")]
    once = document()
    once["state"]["step"]["demos"] = [demo("Rum?")]
    more = document()
    more["state"]["step"]["demos"] = twice
    (tmp_path / "once.json").write_text(json.dumps(once))
    (tmp_path / "more.json").write_text(json.dumps(more))
    [fewer] = diff(tmp_path / "more.json", tmp_path / "once.json").predictors
    assert [(change.kind, change.title) for change in fewer.demos] == [("removed", n) for n in ("Tea?", "Tea?", "Rum?")]
    assert [fewer.kept, fewer.reordered] == [1, False]
    [extra] = diff(tmp_path / "once.json", tmp_path / "more.json").predictors
    assert [(change.kind, change.title) for change in extra.demos] == [("added", n) for n in ("Tea?", "Tea?", "Rum?")]
    assert [extra.kept, extra.reordered] == [1, False]


def test_repeated_questions_are_compared_in_order(tmp_path: Path):
    before, after = document(), document()
    before["state"]["step"]["demos"] = [demo("Tea?", item="a"), demo("Tea?", item="b")]
    after["state"]["step"]["demos"] = [demo("Tea?", item="a2"), demo("Tea?", item="b2"), demo("Tea?", item="c")]
    for name, content in (("a.json", before), ("b.json", after)):
        (tmp_path / name).write_text(json.dumps(content))
    [change] = diff(tmp_path / "a.json", tmp_path / "b.json").predictors
    assert [each.kind for each in change.demos] == ["changed", "changed", "added"]
    assert [[line[4:] for line in each.lines if "price" in line] for each in change.demos] == [
        ['price(item="a")', 'price(item="a2")'],
        ['price(item="b")', 'price(item="b2")'],
        ['price(item="c")'],
    ]


def test_another_order_of_the_same_demos_is_a_change(tmp_path: Path):
    changed = document()
    changed["state"]["step"]["demos"].reverse()
    assert "Demos: 3 the same, in another order\n" in rendered(tmp_path, changed)


def test_figures_and_origin_are_shown(tmp_path: Path):
    changed = document()
    changed["manifest"] |= {
        "lm": "local/b",
        "scores": {"after": {"score": 0.75, "lm_calls_per_row": 2.0}},
        "versions": {"dspy": "3.5.0"},
        "dataset": {"train": "c" * 64, "dev": "b" * 64},
        "spend": {"lm_calls": 1234.0, "cost": 0.5},
    }
    text = rendered(tmp_path, changed)
    assert "The prompts are the same.\n" in text
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if "│" in line]
    assert cells == [
        ["score", "50.0%", "75.0%"],
        ["LM calls per question", "2.5", "2"],
        ["LM calls to compile", "100", "1,234"],
        ["US dollars to compile", "–", "0.5"],
    ]
    assert "Figures (not comparable: other examples or another LM)" in text
    assert text.endswith(
        "Origin\n  LM: local/a → local/b\n  train examples: aaaaaaaaaaaa → cccccccccccc\n  dspy: 3.4.1 → 3.5.0\n"
    )


def test_changed_tool_and_field_are_shown(tmp_path: Path):
    changed = copy.deepcopy(document())
    changed["manifest"]["interface"]["tools"] = {}
    changed["state"]["step"]["signature"]["fields"][0]["description"] = "what is asked"
    text = rendered(tmp_path, changed)
    assert "Fields\n  Question: [-${question}-]{+what is asked+}\n" in text
    assert "  the tool price(item: string) was removed\n" in text


@given(st.text(), st.text())
def test_word_diff_contains_both_texts(before: str, after: str):
    pieces = words(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == after
    assert all(piece.kind == "same" for part in paragraphs(before, before) for piece in part)
    assert render_paragraph(pieces) or not before + after


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_revision_is_read_from_git(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    configured = folder / "mine.json"
    configured.write_text("first")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    configured.write_text("second")
    path = compiled_file("HEAD", configured, tmp_path)
    assert path.read_text() == "first"
    assert configured.read_text() == "second"
    with pytest.raises(ProgramError, match=r"git has no mine\.json of that revision"):
        compiled_file("no-such-branch", configured, tmp_path)
    with pytest.raises(ProgramError, match="no compiled program is configured"):
        compiled_file("HEAD", None, tmp_path)
    assert compiled_file(str(configured), None, tmp_path) == configured


def test_saved_program_can_be_compared(tmp_path: Path):
    program = oneturn.ReAct("question -> answer", tools=[price])
    manifest = Manifest.model_validate(document()["manifest"])
    for name in ("a.json", "b.json"):
        save_compiled(program, manifest, tmp_path / name)
    assert diff(tmp_path / "a.json", tmp_path / "b.json").is_empty
    with pytest.raises(ProgramError, match="There is no compiled program"):
        diff(tmp_path / "a.json", tmp_path / "c.json")
