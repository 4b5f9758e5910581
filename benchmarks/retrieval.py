"""``python -m benchmarks.retrieval [--report docs/retrieval.md]``: measure BM25 alone, and combined with embeddings.

Each question of the training and development splits is used as a query. Recall at k is the share of its source passages
among the first k results.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import oneturn
from benchmarks.machine import ran_on
from benchmarks.report import between_marks
from data.support import CORPUS, load_split
from oneturn.config import RetrieverConfig
from oneturn.retrieval import read_markdown

_KS = (1, 2, 3)
_HEAD = f"| retriever | {' | '.join(f'recall at {k}' for k in _KS)} | ms a search |\n| --- |{' --- |' * (len(_KS) + 1)}"


def main() -> None:
    """Measure, print the table and, with ``--report``, write it."""
    options = _options()
    retrievers = {"words (BM25)": None} | {f"words and {model}": model for model in options.embeddings}
    questions = _questions()
    lines = [_about(len(questions)), "", _HEAD, *(_row(name, model, questions) for name, model in retrievers.items())]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.report:
        path = Path(options.report)
        path.write_text(between_marks(path, text), encoding="utf-8")


def _questions() -> list[tuple[str, set[str]]]:
    """Return questions with the passages that contain their answers; questions about order records are omitted."""
    passages = {document.id for document in read_markdown(CORPUS)}
    questions = [
        (example.question, set(example.citations) & passages)
        for split in ("train", "dev")
        for example in load_split(split)
    ]
    return [(question, sources) for question, sources in questions if sources]


def _row(name: str, model: str | None, questions: list[tuple[str, set[str]]]) -> str:
    config = RetrieverConfig.model_validate({"k": max(_KS), "embeddings": model})
    retriever = oneturn.build_retriever(config, documents=lambda: read_markdown(CORPUS))
    retriever.search(questions[0][0])  # excludes startup and the embedding of the documents
    start = time.perf_counter()
    results = [[document.id for document in retriever.search(question)] for question, _ in questions]
    seconds = (time.perf_counter() - start) / len(questions)
    recalls = [_recall(results, [sources for _, sources in questions], k) for k in _KS]
    return f"| {name} | {' | '.join(f'{recall:.1%}' for recall in recalls)} | {1000 * seconds:.1f} |"


def _recall(results: list[list[str | None]], expected: list[set[str]], k: int) -> float:
    shares = [len(sources & set(ids[:k])) / len(sources) for ids, sources in zip(results, expected, strict=True)]
    return sum(shares) / len(shares)


def _about(questions: int) -> str:
    return (
        f"{ran_on('bm25s', 'xllamacpp', 'numpy')}\n"
        f"- {questions} questions of the support desk's training and development splits, 40 passages"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--embeddings", nargs="*", default=["local/0.5B"], help="embedding models (retriever.embeddings)"
    )
    parser.add_argument("--report", help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
