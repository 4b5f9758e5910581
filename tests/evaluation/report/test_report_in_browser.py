"""The report in a real browser, opened from disk, without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from oneturn.evaluation.report import show_report, write_report
from oneturn.evaluation.result import Evaluation
from tests.evaluation.report.samples import HOSTILE, evaluation, failed, hostile, hostile_rows, row, support_desk

pytestmark = pytest.mark.browser

Open = Callable[[Path], Page]


def lines(page: Page) -> list[str]:
    """The ids of the rows in the table, from above."""
    return page.locator("#table button.open").all_text_contents()


@pytest.fixture
def page(opened: Open, tmp_path: Path) -> Page:
    """A report on six rows beside a baseline: 2 is better than it was, 3 failed, 4 is worse."""
    before = [row(number, score=0.0 if number == 2 else 1.0) for number in range(1, 7)]
    after = [row(number) for number in range(1, 7)]
    after[2] = failed(3)
    after[3] = row(4, pred_answer="nine", score=0.4, seconds=0.5)
    return opened(write_report(tmp_path / "report.html", evaluation(*after), evaluation(*before)))


def test_rows_are_found_by_text(page: Page):
    page.get_by_label("Search").fill("NINE example-4")
    assert lines(page) == ["example-4"]
    expect(page.get_by_role("status")).to_have_text("1 of 6 rows")


@pytest.mark.parametrize(
    ("filter_name", "choice", "found"),
    [
        ("Category", "even", ["example-2", "example-4", "example-6"]),
        ("Result", "not passed", ["example-3", "example-4"]),
        ("Result", "partly right", ["example-4"]),
        ("Result", "no answer: an error", ["example-3"]),
        ("Against baseline", "better", ["example-2"]),
        ("Against baseline", "worse", ["example-3", "example-4"]),
        ("Against baseline", "flipped: passes now, or no longer", ["example-2", "example-3", "example-4"]),
    ],
)
def test_rows_are_found_by_what_became_of_them(page: Page, filter_name: str, choice: str, found: list[str]):
    page.get_by_role("combobox", name=filter_name).select_option(label=choice)
    assert lines(page) == found
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_role("status")).to_have_text("6 of 6 rows")


def test_the_summary_s_counts_lead_to_their_rows(page: Page):
    page.get_by_label("Search").fill("example-1")
    page.get_by_role("button", name="2 worse").click()
    expect(page.get_by_role("status")).to_have_text("2 of 6 rows")
    expect(page.get_by_label("Against baseline")).to_be_focused()
    page.get_by_role("button", name="1 no answer: an error").click()
    expect(page.get_by_role("status")).to_have_text("1 of 6 rows")
    assert lines(page) == ["example-3"]


def test_a_column_sorts_up_and_down(page: Page):
    page.get_by_role("button", name="Seconds").click()
    assert lines(page)[0] == "example-4"
    expect(page.get_by_role("columnheader", name="Seconds")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Seconds").click()
    assert lines(page)[0] == "example-6"
    expect(page.get_by_role("columnheader", name="Seconds")).to_have_attribute("aria-sort", "descending")


def test_a_row_opens_and_closes_by_keyboard(page: Page):
    opener = page.get_by_role("button", name="example-4: details")
    opener.focus()
    page.keyboard.press("Enter")
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(opener).to_be_focused()
    detail = page.locator("#detail-4")
    for text in ("add", "nine", "arithmetic", "Tool calls", "baseline"):
        expect(detail).to_contain_text(text)
    page.keyboard.press("Enter")
    expect(detail).to_have_count(0)
    expect(opener).to_be_focused()


def test_a_failed_row_tells_why(page: Page):
    page.get_by_role("button", name="example-3: details").click()
    expect(page.locator("#detail-3")).to_contain_text("RunError: no answer")


def test_whatever_the_texts_hold_stays_text(opened: Open, tmp_path: Path):
    found = hostile()
    page = opened(write_report(tmp_path / "r.html", found, found, title=HOSTILE, names=(HOSTILE, HOSTILE)))
    for button in page.locator("#table button.open").all():
        button.click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert page.title().startswith("</script><script>")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    assert page.locator("#detail-1 dd", has_text="<img src=x").count() >= 5
    expect(page.locator("#detail-1 .steps b")).to_have_text(HOSTILE)
    expect(page.locator("#detail-2 pre.wrong")).to_have_text(HOSTILE)


def test_ten_thousand_rows_are_read_in_pages(opened: Open, tmp_path: Path):
    page = opened(write_report(tmp_path / "r.html", evaluation(*(row(number) for number in range(1, 10_001)))))
    assert len(lines(page)) == 50
    page.get_by_role("button", name="Next").click()
    assert lines(page)[0] == "example-51"
    page.get_by_label("Search").fill("example-9999")
    assert lines(page) == ["example-9999"]


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_sticks_out_of_the_window(opened: Open, tmp_path: Path, width: int):
    before, after = support_desk()
    long = [row(1, id="x" * 300, category="c" * 300, question="q" * 3000, pred_answer="a" * 3000)]
    for number, sides in enumerate([(after, before), (evaluation(*long), None), (hostile(), None)]):
        page = opened(write_report(tmp_path / f"{number}.html", *sides, title="T" * 200))
        page.set_viewport_size({"width": width, "height": 800})
        page.locator("#table button.open").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_repeats_and_other_metrics_are_shown(opened: Open, tmp_path: Path):
    rows = [row(1, repeat=number, exact=0.25, exact_feedback="too long") for number in (0, 1)]
    page = opened(write_report(tmp_path / "r.html", Evaluation(evaluation(*rows).rows)))
    expect(page.get_by_role("columnheader", name="Repeat")).to_be_visible()
    expect(page.locator(".panel", has_text="Other metrics")).to_contain_text("25%")
    page.locator("#table button.open").first.click()
    expect(page.locator("#detail-1")).to_contain_text("too long")


def test_in_a_notebook_it_works_in_a_frame_of_its_own(opened: Open, tmp_path: Path):
    report = show_report(evaluation(*[row(number) for number in range(1, 7)], *hostile_rows()))
    cell = tmp_path / "cell.html"
    cell.write_text(f"<!doctype html><meta charset=utf-8><title>cell</title>{report._repr_html_()}", encoding="utf-8")
    frame = opened(cell).frame_locator("iframe")
    frame.get_by_label("Search").fill("example-4")
    expect(frame.get_by_role("status")).to_have_text("1 of 8 rows")
    assert len(repr(report)) < 100
