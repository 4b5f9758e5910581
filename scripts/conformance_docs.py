"""Write the tables of rules in docs/conformance-rules.md: `python -m scripts.conformance_docs`."""

from pathlib import Path

from oneturn.conformance.rule import Rule
from oneturn.conformance.rules import SECTIONS

PAGE = Path(__file__).parent.parent / "docs" / "conformance-rules.md"
BEGIN, END = "<!-- rules: begin -->\n", "<!-- rules: end -->\n"


def tables() -> str:
    """Return one Markdown table per section: each rule with its requirement, reason and severity."""
    return "\n".join(_section(title, rules) for title, rules in SECTIONS.items())


def page() -> str:
    """Return the page with its tables regenerated and the rest unchanged."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}{END}{after}"


def _section(title: str, rules: tuple[Rule, ...]) -> str:
    rows = [f"| `{rule.name}` | {rule.asks} | {rule.why} | {_severity(rule)} |" for rule in rules]
    return "\n".join([f"### {title}", "| rule | asks | why | severity |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _severity(rule: Rule) -> str:
    text = f"{rule.severity.value} ({rule.weaker.value})" if rule.weaker else rule.severity.value
    return f"{text}; Open Responses: {rule.open_responses.value}" if rule.open_responses else text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
