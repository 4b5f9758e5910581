"""Write docs/ask.svg, the picture in the README: ``python -m scripts.picture`` asks a question and draws it."""

import io
import re
from pathlib import Path

from rich.console import Console

from oneturn import load_agent
from oneturn.serving import ask

QUESTION = "Which port does our firewall have to open for outgoing traffic?"
PICTURE = Path("docs/ask.svg")


def main() -> None:
    """Ask the question, and write the picture."""
    console = Console(record=True, width=100, force_terminal=True, file=io.StringIO())
    console.print(f'[bold green]$[/bold green] oneturn ask "{QUESTION}"')
    ask(load_agent("agent.py"), QUESTION, console=console)
    svg = console.export_svg(title="oneturn")
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")  # no web fonts


if __name__ == "__main__":
    main()
