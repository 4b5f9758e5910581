"""``python -m benchmarks.page [--answers 30]``: how long after the server has the first token the page shows it.

An agent is served in a process of its own, with the stub LM of ``benchmarks.serving``, which writes 500 pieces a
second. The server has the first token when the stub LM sends it; the answer begins with that time. The page shows it in
the first animation frame in which the answer has text. Both are read from the machine's clock.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import time

from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import ran_on
from benchmarks.serving.processes import run_server, run_stub_lm

# Records when the last answer has text, in a frame that is about to be painted.
OBSERVE = """
window.shown = new Promise((resolve) => {
  const look = () => {
    const answers = document.querySelectorAll(".answer:not([hidden])");
    if (answers.length > BEFORE && answers[BEFORE].textContent) {
      resolve(performance.timeOrigin + performance.now());
    } else requestAnimationFrame(look);
  };
  look();
});
0
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=30, help="number of answers")
    answers = parser.parse_args().answers
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("This needs a browser. Install Chromium, for example with apt-get install chromium.")
    with run_stub_lm() as lm, run_server("ours", lm, "") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(url)
        delays = [_delay(page, number) for number in range(answers + 1)][1:]  # the first one opens connections
        browser.close()
    delays.sort()
    print(ran_on("dspy", "mlflow", "uvicorn"))
    print(
        f"- first token, from the LM's piece to the page's frame, {answers} answers: median "
        f"{statistics.median(delays):.0f} ms, 95th percentile {delays[int(0.95 * (answers - 1))]:.0f} ms"
    )


def _delay(page: Page, number: int) -> float:
    """Ask a question, and return the milliseconds between the LM's first piece and the frame that shows it."""
    page.evaluate(OBSERVE.replace("BEFORE", str(number)))
    page.get_by_label("Question").fill("What does it cost?")
    page.keyboard.press("Enter")
    shown = page.evaluate("window.shown")
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    sent = re.search(r"t=([\d.]+);", page.locator(".answer").nth(number).inner_text())
    if sent is None:
        raise RuntimeError("The answer doesn't begin with the time of the stub LM.")
    monotonic_to_wall = time.time() - time.monotonic()
    return float(shown - 1000 * (float(sent[1]) + monotonic_to_wall))


if __name__ == "__main__":
    main()
