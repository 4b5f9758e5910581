"""The support desk's data: gold answers can be found and computed, and no split leaks into another."""

from __future__ import annotations

import ast
import itertools
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import dspy
import pandas as pd
import pytest

from data.support import CORPUS, EXAMPLES, ORDERS, SCHEMA, SupportExample, load_split, schema_text, style_of
from oneturn.agent import load_agent
from oneturn.core.splits import SPLITS
from oneturn.datasets import dataset_hash, load_rows, write_rows
from oneturn.datasets.rows import find_measured_dataset
from oneturn.errors import DataError
from optimizers.answers import same_answer
from optimizers.metric import support_metric
from optimizers.quantities import NUMBER_WORDS

ROOT = Path(__file__).resolve().parents[2]
NEAR_DUPLICATE = 0.6
OPERATORS: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

ROWS = {split: load_rows(EXAMPLES / f"{split}.jsonl", SupportExample) for split in SPLITS}
ALL = [row for rows in ROWS.values() for row in rows]
PASSAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CORPUS.glob("*.md"))}
RECORDS = pd.read_csv(ORDERS, dtype=str, keep_default_na=False).set_index("order_id").to_dict("index")


def rows(*categories: str) -> list[object]:
    return [pytest.param(row, id=row.id) for row in ALL if not categories or row.category in categories]


def test_sizes_of_the_data() -> None:
    assert len(PASSAGES) == 40
    assert {split: len(examples) for split, examples in ROWS.items()} == {"train": 99, "dev": 99, "test": 129}


def test_natural_examples_follow_the_plain_ones() -> None:
    for split, plain in {"train": 54, "dev": 54, "test": 84}.items():
        assert [row.style for row in ROWS[split]] == ["plain"] * plain + ["natural"] * 45
        assert [row.id for row in ROWS[split]] == [f"{split}-{number:03}" for number in range(1, plain + 46)]


def test_shipped_program_was_compiled_from_the_shipped_examples() -> None:
    agent = load_agent(ROOT / "agent.py", ROOT / "configs" / "dev.yaml")
    manifest = json.loads((ROOT / "data" / "compiled" / "support_desk.json").read_text(encoding="utf-8"))["manifest"]
    assert manifest["dataset"]["train"] == dataset_hash(agent.examples("train"))
    assert find_measured_dataset(agent, manifest["dataset"]["dev"]) is not None


def test_splits_and_styles_have_the_same_categories() -> None:
    for category, total in Counter(row.category for row in ALL).items():
        for (split, examples), style in itertools.product(ROWS.items(), ("plain", "natural")):
            of_style = [row for row in examples if row.style == style]
            share = sum(row.category == category for row in of_style) / len(of_style)
            assert share == pytest.approx(total / len(ALL), abs=0.02), (split, style, category)


@pytest.mark.parametrize("ident", PASSAGES)
def test_a_passage_is_a_title_and_a_short_body(ident: str) -> None:
    title, blank, body, *rest = PASSAGES[ident].split("\n")
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+){0,2}", ident)
    assert title.startswith("# ")
    assert (blank, rest) == ("", [""])
    assert 35 <= len(body.split()) <= 70


def test_orders_are_consistent_with_the_handbook() -> None:
    prices = " ".join(PASSAGES.values())
    for ident, order in RECORDS.items():
        assert re.fullmatch(r"M-\d{4}", ident)
        assert f"€{order['unit_price_eur']}" in prices, ident
        assert bool(order["delivered_on"]) == (order["status"] in {"delivered", "returned"}), ident
        assert order["delivered_on"] == "" or order["delivered_on"] > order["ordered_on"], ident
        assert order["plan"] in {"", "Start", "Team", "Floor"}


@pytest.mark.parametrize("row", rows())
def test_evidence_is_in_its_source(row: SupportExample) -> None:
    for evidence in row.evidence:
        if evidence.source in RECORDS:
            column, value = evidence.fact.split(": ", 1)
            assert RECORDS[evidence.source][column] == value
        else:
            assert evidence.fact in PASSAGES[evidence.source]


@pytest.mark.parametrize("row", rows("lookup", "paraphrase", "two_hop", "record"))
def test_answer_is_in_the_evidence(row: SupportExample) -> None:
    fact = row.evidence[-1].fact.casefold()
    words = re.findall(r"\d+(?:[.:-]\d+)*|\w+", row.answer.casefold())
    assert set(words) - {"to", "every", "within"} <= set(re.findall(r"\d+(?:[.:-]\d+)*|\w+", fact))


@pytest.mark.parametrize("row", rows("two_hop"))
def test_a_two_hop_question_needs_two_sources(row: SupportExample) -> None:
    first, passage = row.citations
    assert passage in PASSAGES
    assert first in PASSAGES or first in orders(row.question)


@pytest.mark.parametrize("row", rows("sum"))
def test_expression_has_the_value_of_the_answer(row: SupportExample) -> None:
    assert row.expression is not None
    value = evaluate(ast.parse(row.expression, mode="eval").body)
    assert same_answer(row.answer, f"{value}")
    if row.answer.startswith("€"):
        assert row.answer == f"€{value:.2f}"


@pytest.mark.parametrize("row", rows("sum"))
def test_numbers_of_an_expression_are_in_question_or_evidence(row: SupportExample) -> None:
    assert row.expression is not None
    facts = " ".join(evidence.fact for evidence in row.evidence)
    allowed = numbers(f"{facts} {row.question}")
    allowed |= {Decimal(100)} if "%" in facts else set()
    allowed |= {Decimal(12)} if "year" in row.question else set()
    assert numbers(row.expression) <= allowed


@pytest.mark.parametrize("row", rows("unanswerable"))
def test_orders_in_unanswerable_questions_do_not_exist(row: SupportExample) -> None:
    assert not orders(row.question) & set(RECORDS)


@pytest.mark.parametrize("row", rows())
def test_every_order_in_an_answerable_question_exists(row: SupportExample) -> None:
    if row.answerable:
        assert orders(row.question) <= set(RECORDS)


@pytest.mark.parametrize("row", rows())
def test_the_gold_answer_gets_the_full_score(row: SupportExample) -> None:
    gold = dspy.Example(answer=row.answer, answerable=row.answerable, citations=row.citations)
    assert support_metric(gold, gold) == 1


def test_ids_and_questions_are_unique() -> None:
    assert len({row.id for row in ALL}) == len(ALL)
    assert len({" ".join(tokens(row.question)) for row in ALL}) == len(ALL)


def test_no_question_is_repeated_in_another_split() -> None:
    for one, other in across_splits():
        mine, theirs = set(tokens(one.question)), set(tokens(other.question))
        assert len(mine & theirs) / len(mine | theirs) < NEAR_DUPLICATE, (one.question, other.question)


def test_splits_do_not_share_evidence() -> None:
    for one, other in across_splits():
        assert not one.evidence or one.evidence != other.evidence, (one.id, other.id)


def test_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run: python -m data.support"


def test_only_the_question_is_an_input() -> None:
    labels = {"id", "category", "answer", "answerable", "citations", "expression", "facts"}
    first, *_, last = load_split("train")
    assert set(first.inputs().keys()) == set(last.inputs().keys()) == {"question"}
    assert set(first.labels().keys()) == labels
    assert set(last.labels().keys()) == labels | {"style"}
    assert (style_of(first), style_of(last)) == ("plain", "natural")


def test_unknown_split_is_an_error_that_lists_the_splits() -> None:
    with pytest.raises(DataError, match="unknown split 'validation'; the splits are train, dev, test"):
        load_split("validation")


def test_configured_folder_is_read_in_any_format(tmp_path: Path) -> None:
    rows = load_rows(EXAMPLES / "dev.jsonl", SupportExample)[:3]
    write_rows(tmp_path / "dev.csv", [row.model_dump(mode="json") for row in rows])
    (tmp_path / "config.yaml").write_text(f"lm:\n  model: local/1.5B\ndata:\n  examples: {tmp_path}\n")
    agent = load_agent(ROOT / "agent.py", tmp_path / "config.yaml")
    assert [example.toDict() for example in agent.examples("dev")] == [row.toDict() for row in load_split("dev")[:3]]
    with pytest.raises(DataError, match=r"has no train examples\. Add train\.jsonl"):
        agent.examples("train")


def test_paths_are_relative_to_the_data_folder() -> None:
    assert ORDERS.parent.parent == CORPUS.parent == Path(schema_text.__code__.co_filename).resolve().parent


def evaluate(node: ast.expr) -> Decimal:
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](evaluate(node.left), evaluate(node.right))
    assert isinstance(node, ast.Constant)
    return Decimal(str(node.value))


def numbers(text: str) -> set[Decimal]:
    written = {Decimal(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}
    spelled = {Decimal(NUMBER_WORDS.index(word)) for word in tokens(text) if word in NUMBER_WORDS}
    return written | spelled


def orders(question: str) -> set[str]:
    return set(re.findall(r"M-\d+", question.upper()))


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def across_splits() -> Iterator[tuple[SupportExample, SupportExample]]:
    for one, other in itertools.combinations(SPLITS, 2):
        yield from itertools.product(ROWS[one], ROWS[other])
