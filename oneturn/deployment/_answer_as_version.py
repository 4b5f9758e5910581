"""Answer questions as a logged version does: a script, run by its path, in a process that has loaded nothing else.

    python version_answers.py MODEL AGENT_FILE QUESTIONS ANSWERS [uncompiled]

The version's own code answers, oneturn's included, so only what every version of oneturn has is used here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Write a line for each question: the row of its evaluation; or one that says why there are none."""
    model, agent_file, questions, answers, *options = sys.argv[1:]
    try:
        rows = _answered(Path(model), agent_file, Path(questions), compiled="uncompiled" not in options)
    except Exception as error:  # whatever it is, the process that waits has to be told
        rows = [{"failed": f"{type(error).__name__}: {error}"}]
    Path(answers).write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
    return 0


def _answered(model: Path, agent_file: str, questions: Path, compiled: bool) -> list[dict[Any, Any]]:
    sys.path[0] = str(model / "code")  # instead of this file's folder

    import dspy

    from oneturn import evaluate, load_agent

    agent = load_agent(model / agent_file)
    lines = questions.read_text(encoding="utf-8").splitlines()
    examples = [dspy.Example(**inputs).with_inputs(*inputs) for inputs in map(json.loads, lines)]
    program, threads = agent.program(compiled=compiled), agent.config.compile.threads
    evaluation = evaluate(program, examples, lambda *_: 0.0, lm=agent.lm(), threads=threads)
    rows = evaluation.rows
    # What is missing is null: pandas has NaN for it, for None too in a column that holds a text.
    found: list[dict[Any, Any]] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return found


if __name__ == "__main__":
    sys.exit(main())
