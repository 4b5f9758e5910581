"""A question set that nobody here wrote, as the JSONL that ``benchmarks.recipes --data`` takes.

    pip install reasoning-gym    # Apache-2.0, by the Open-Thought community; no dependency of oneturn
    python -m benchmarks.outside_sets gsm_symbolic > .oneturn/gsm_symbolic.jsonl
    python -m benchmarks.outside_sets family_relationships --test 60 > .oneturn/family_relationships.jsonl

Its sets are made by rule from a seed, each question with its answer: ``gsm_symbolic`` has arithmetic word problems of
several steps, ``family_relationships`` questions that join facts of two or three sentences. Any other of its sets works
whose answer is text. The same seed gives the same questions.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

PACKAGE = "reasoning_gym"
SIZES = {"train": 20, "dev": 20, "test": 40}


def rows(name: str, entries: Iterable[Mapping[str, Any]], sizes: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """Give each split as many of the entries as ``sizes`` says, as rows of question and answer.

    Args:
        name: the set's name; the rows' ids begin with it.
        entries: in the set's own form, with ``question`` and ``answer``; a question that comes again is passed over.
        sizes: how many rows each split gets, in order.

    Raises:
        SystemExit: there are too few entries.
    """
    fresh = iter({entry["question"]: entry for entry in entries}.values())
    for split, size in sizes.items():
        for number in range(1, size + 1):
            if (entry := next(fresh, None)) is None:
                raise SystemExit(f"{name} has too few different questions for {number} of {split}: ask for fewer.")
            question, answer = entry["question"].strip(), str(entry["answer"]).strip()
            yield {"id": f"{name}-{split}-{number:03}", "split": split, "question": question, "answer": answer}


def entries(name: str, count: int, seed: int) -> Iterable[Mapping[str, Any]]:
    """So many entries of the package's set.

    Raises:
        SystemExit: the package isn't there, or has no such set.
    """
    try:
        found = importlib.import_module(PACKAGE)
    except ImportError:
        raise SystemExit(f"There is no {PACKAGE}, which has the questions: pip install reasoning-gym") from None
    known = importlib.import_module(f"{PACKAGE}.factory").DATASETS
    if name not in known:
        raise SystemExit(f"{PACKAGE} has no set {name!r}. It has: {', '.join(sorted(known))}")
    made: Iterable[Mapping[str, Any]] = found.create_dataset(name, size=count, seed=seed)
    return made


def main() -> None:
    """Write the rows to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the set, such as gsm_symbolic")
    for split, size in SIZES.items():
        parser.add_argument(f"--{split}", type=int, default=size, help=f"rows of {split} (default: {size})")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sizes = {split: getattr(options, split) for split in SIZES}
    for row in rows(options.name, entries(options.name, 2 * sum(sizes.values()), options.seed), sizes):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
