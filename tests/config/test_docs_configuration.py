"""docs/configuration.md matches the configuration models."""

from scripts.configuration_docs import PAGE, page


def test_the_table_of_keys_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m scripts.configuration_docs"


def test_every_key_has_a_description():
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []
