"""The quality report keeps plain and natural examples apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

import oneturn
from benchmarks.quality import ordered_examples
from benchmarks.report import write_report
from data.support import style_of

ROOT = Path(__file__).resolve().parents[2]


def rows(scores: dict[str, float], style: str) -> pd.DataFrame:
    usage = {"lm_calls": 2, "prompt_tokens": 1_000, "completion_tokens": 80, "seconds": 1.0, "error": None}
    return pd.DataFrame(
        [{"id": id, "category": "sum", "style": style, "score": score, **usage} for id, score in scores.items()]
    )


def test_each_value_of_the_label_has_its_own_tables(tmp_path: Path):
    compiled = pd.concat([rows({"a": 1.0, "b": 0.0}, "plain"), rows({"c": 0.25}, "natural")])
    results = {"oneturn.ReAct, uncompiled": rows({"a": 0.0, "b": 0.0}, "plain"), "oneturn.ReAct, compiled": compiled}
    write_report(results, {"split": "test"}, tmp_path / "page.md", by="style")
    text = (tmp_path / "page.md").read_text()
    about, plain, natural = text.replace("**natural**", "**plain**").split("**plain**")
    assert "- split: test" in about
    assert "| oneturn.ReAct, uncompiled | 2 | 0.0%" in plain
    assert "| oneturn.ReAct, compiled | 2 | 50.0%" in plain
    assert "| sum | 0% | 50% |" in plain
    assert "+50.0 points" in plain
    assert "| 2.00 | 1,080 | 80 | 1.0 | 0 |" in natural
    assert "uncompiled" not in natural, "it has no natural rows"
    assert "Paired" not in natural, "there is nothing to compare"
    assert "| oneturn.ReAct, compiled | 1 | 25.0%" in natural
    assert "| sum | 25% |" in natural


def test_first_examples_are_of_each_style_and_category():
    agent = oneturn.load_agent(ROOT / "agent.py", ROOT / "configs" / "dev.yaml")
    first = ordered_examples(agent, "dev")[:12]
    assert Counter((style_of(example), example.category) for example in first).most_common(1)[0][1] == 1
    natural = ordered_examples(agent, "dev", "natural")
    assert {style_of(example) for example in natural} == {"natural"}
    assert len(natural) == 45
