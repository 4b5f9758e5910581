"""Write the tables of rules in docs/conformance.md: `python -m scripts.conformance_docs`."""

from pathlib import Path

from oneturn.conformance.rules import SECTIONS, Rule

PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"
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
    return f"{rule.severity.value} ({rule.weaker.value})" if rule.weaker else rule.severity.value


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
