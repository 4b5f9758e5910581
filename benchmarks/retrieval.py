"""``python -m benchmarks.retrieval [--report docs/retrieval.md] [--recall docs/quality.md]``: measure retrievers.

Each question of the training and development splits is used as a query. Recall at k is the share of its source passages
among the first k results. ``--report`` writes the recall and the time of keyword search, with and without a stemmer,
and of hybrid search. ``--recall`` writes the recall of keyword search by style and category, which no machine changes,
and ``--least-scores`` what a least score costs and gains.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

import oneturn
from benchmarks.machine import ran_on
from benchmarks.report import between_marks
from data.support import CORPUS, load_split, style_of
from oneturn.config import RetrieverConfig
from oneturn.retrieval import read_markdown

STEMMER = "english"
_KS = (1, 2, 3, 4, 5)
_SHOWN = (1, 2, 3)
_LEAST_KS = (2, 3, 4)
_LEAST_SCORES = (0, 1.25, 1.5, 1.75, 2, 2.25)


def main() -> None:
    """Measure, print the tables and, with ``--report`` and ``--recall``, write them."""
    options = _options()
    _write(speed(options.embeddings), "measured", options.report)
    _write(recall(), "recall", options.recall)
    _write(least_scores(), "least scores", options.least_scores)


def speed(embeddings: Sequence[str]) -> str:
    """Return a table of recall and time: keyword search, with a stemmer, and hybrid with each embedding model."""
    retrievers: dict[str, RetrieverConfig] = {
        "words (BM25)": _config(),
        "words, stemmed": _config(stemmer=STEMMER),
        **{f"words and {model}": _config(embeddings=model) for model in embeddings},
    }
    questions = _questions()
    lines = [
        ran_on("bm25s", "snowballstemmer", "xllamacpp", "numpy"),
        f"- {len(questions)} questions of the support desk's training and development splits, 40 passages",
        "",
        f"| retriever | {' | '.join(f'recall at {k}' for k in _SHOWN)} | ms a search |",
        f"| --- |{' --- |' * (len(_SHOWN) + 1)}",
    ]
    for name, config in retrievers.items():
        shares, seconds = _shares(config, questions)
        values = " | ".join(f"{shares[k].mean():.1%}" for k in _SHOWN)
        lines.append(f"| {name} | {values} | {1000 * seconds:.1f} |")
    return "\n".join(lines) + "\n"


def recall() -> str:
    """Return a table of the recall of keyword search by style and category: whole words / stemmed."""
    questions = _questions()
    words, _ = _shares(_config(), questions)
    stemmed, _ = _shares(_config(stemmer=STEMMER), questions)
    lines = [f"| questions | number | {' | '.join(f'at {k}' for k in _KS)} |", f"| --- |{' --- |' * (len(_KS) + 1)}"]
    for style, of_style in questions.groupby("style", sort=False):
        groups = {"all": of_style, **dict(iter(of_style.groupby("category")))}
        for category, rows in groups.items():
            cells = [f"{words.loc[rows.index, k].mean():.0%} / {stemmed.loc[rows.index, k].mean():.0%}" for k in _KS]
            lines.append(f"| {style}, {category} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def least_scores() -> str:
    """Return a table of what a least score of keyword search costs and gains, by the style of the questions."""
    answered, unanswerable = _questions(), _questions(answerable=False)
    columns = [
        "recall, plain",
        "recall, natural",
        "nothing found, unanswerable plain",
        "unanswerable natural",
        "passages",
    ]
    lines = [f"| k | min_score | {' | '.join(columns)} |", f"| --- | --- |{' --- |' * len(columns)}"]
    for k in _LEAST_KS:
        for least in _LEAST_SCORES:
            config = RetrieverConfig(k=k, stemmer=STEMMER, min_score=least)
            found = {id(rows): _found(config, rows["question"]) for rows in (answered, unanswerable)}
            recalls = [
                len(sources & set(ids)) / len(sources)
                for ids, sources in zip(found[id(answered)], answered["sources"], strict=True)
            ]
            nothing = [not ids for ids in found[id(unanswerable)]]
            shares = [
                f"{pd.Series(values).groupby(list(rows['style'])).mean()[style]:.0%}"
                for values, rows in ((recalls, answered), (nothing, unanswerable))
                for style in ("plain", "natural")
            ]
            lengths = [len(ids) for each in found.values() for ids in each]
            lines.append(f"| {k} | {least:g} | {' | '.join(shares)} | {sum(lengths) / len(lengths):.1f} |")
    return "\n".join(lines) + "\n"


def _questions(answerable: bool = True) -> pd.DataFrame:
    """Return questions with the passages that contain their answers, or those that have none.

    Questions about order records alone are omitted.
    """
    passages = {document.id for document in read_markdown(CORPUS)}
    rows = [
        {
            "question": example.question,
            "sources": set(example.citations) & passages,
            "style": style_of(example),
            "category": example.category,
        }
        for split in ("train", "dev")
        for example in load_split(split)
    ]
    if answerable:
        return pd.DataFrame([row for row in rows if row["sources"]])
    return pd.DataFrame([row for row in rows if row["category"] == "unanswerable"])


def _config(**keys: str) -> RetrieverConfig:
    return RetrieverConfig.model_validate({"k": max(_KS), **keys})


def _shares(config: RetrieverConfig, questions: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Return the share of each question's passages among the first k results, a column per k; and seconds a search."""
    retriever = oneturn.build_retriever(config, documents=lambda: read_markdown(CORPUS))
    retriever.search(questions["question"][0])  # excludes startup and the embedding of the documents
    start = time.perf_counter()
    results = [[document.id for document in retriever.search(question)] for question in questions["question"]]
    seconds = (time.perf_counter() - start) / len(questions)
    shares = [
        {k: len(sources & set(ids[:k])) / len(sources) for k in _KS}
        for ids, sources in zip(results, questions["sources"], strict=True)
    ]
    return pd.DataFrame(shares, index=questions.index), seconds


def _found(config: RetrieverConfig, questions: Iterable[str]) -> list[list[str | None]]:
    retriever = oneturn.build_retriever(config, documents=lambda: read_markdown(CORPUS))
    return [[document.id for document in retriever.search(question)] for question in questions]


def _write(table: str, name: str, file: str | None) -> None:
    print(table)
    if file:
        path = Path(file)
        path.write_text(between_marks(path, table, name), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--embeddings", nargs="*", default=["local/0.5B"], help="embedding models (retriever.embeddings)"
    )
    parser.add_argument("--report", help="Markdown file to write recall and time to")
    parser.add_argument("--recall", help="Markdown file to write the recall by style and category to")
    parser.add_argument("--least-scores", help="Markdown file to write the effect of retriever.min_score to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
