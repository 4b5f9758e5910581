"""Answer questions with a logged version: a script that runs in its own process.

    python _answer_as_version.py MODEL AGENT_FILE QUESTIONS ANSWERS [uncompiled]

It runs the version's own code, including its oneturn, so it uses only names that every version of oneturn has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Write one line per question, the row of its evaluation; or a single line with the error."""
    model, agent_file, questions, answers, *options = sys.argv[1:]
    try:
        rows = _evaluate(Path(model), agent_file, Path(questions), compiled="uncompiled" not in options)
    except Exception as error:  # the parent process reports the error
        rows = [{"failed": f"{type(error).__name__}: {error}"}]
    Path(answers).write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
    return 0


def _evaluate(model: Path, agent_file: str, questions: Path, compiled: bool) -> list[dict[Any, Any]]:
    sys.path[0] = str(model / "code")  # instead of this file's folder

    import dspy

    from oneturn import evaluate, load_agent

    agent = load_agent(model / agent_file)
    lines = filter(None, questions.read_text(encoding="utf-8").split("\n"))
    examples = [dspy.Example(**inputs).with_inputs(*inputs) for inputs in map(json.loads, lines)]
    program, threads = agent.program(compiled=compiled), agent.config.compile.threads
    # The rows are read from the file that evaluate writes: a DataFrame has NaN where a row has no value.
    file = questions.with_name("rows.jsonl")
    evaluate(program, examples, lambda *_: 0.0, lm=agent.program_lm(program), threads=threads, output=file)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


if __name__ == "__main__":
    sys.exit(main())
