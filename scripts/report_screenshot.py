"""Write docs/report.png, a screenshot of the report on the rows in docs/samples.

Run ``python -m scripts.report_screenshot``; it needs Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

from oneturn.evaluation.report import write_report
from oneturn.evaluation.result import Evaluation

DOCS = Path(__file__).resolve().parent.parent / "docs"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]


def main() -> None:
    """Write the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", nargs="?", type=Path, default=DOCS / "report.png")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1640)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        after, before = (Evaluation.read(DOCS / "samples" / f"support-desk-{name}.jsonl") for name in SIDES)
        page = write_report(Path(folder) / "report.html", after, before, title=TITLE, names=(SIDES[1], SIDES[0]))
        _screenshot(page, options.output, options.dark, {"width": options.width, "height": options.height})


SIDES = ("scripted", "uncompiled")
TITLE = "Support desk on the test split"


def _screenshot(page: Path, output: Path, dark: bool, size: ViewportSize) -> None:
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("The screenshot needs a browser. Install Chromium, for example with apt-get install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        tab = browser.new_page(viewport=size, color_scheme="dark" if dark else "light")
        tab.goto(page.as_uri())
        tab.get_by_role("button", name="test-003").click()
        tab.mouse.move(0, 0)
        tab.evaluate("document.activeElement.blur()")
        tab.screenshot(path=output)
        browser.close()


if __name__ == "__main__":
    main()
