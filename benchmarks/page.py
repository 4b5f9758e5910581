"""``python -m benchmarks.page [--answers 30]``: how long after the server has the first token the page shows it.

The server has it when the scripted LM replies, at once; the page shows it in the first animation frame in which the
answer has text. Both are read from the machine's clock, in this process and in Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time

import dspy
import mlflow
from playwright.sync_api import sync_playwright

import oneturn
from benchmarks.machine import ran_on
from oneturn.testing import ScriptedLM, ScriptedRequest

_TEXT = "The basic plan costs 4 euros a month, and can be cancelled at any time. " * 10
REPLY = f"[[ ## answer ## ]]\n{_TEXT}\n\n[[ ## completed ## ]]"

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=30)
    answers = parser.parse_args().answers
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("This needs a browser. Install Chromium, for example with apt-get install chromium.")
    mlflow.tracing.disable()
    program = dspy.Predict("question -> answer")
    replied: list[float] = []

    def reply(request: ScriptedRequest) -> str:
        replied.append(1000 * time.time())
        return REPLY

    program.set_lm(ScriptedLM(*[reply] * answers))
    delays = []
    with oneturn.running_server(oneturn.ResponsesAdapter(program)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(url)
        for number in range(answers):
            page.evaluate(OBSERVE.replace("BEFORE", str(number)))
            page.get_by_label("Question").fill("What does it cost?")
            page.keyboard.press("Enter")
            delays.append(page.evaluate("window.shown") - replied[number])
            page.get_by_role("button", name="Ask", exact=True).wait_for()
        browser.close()
    delays.sort()
    print(ran_on("dspy", "mlflow", "uvicorn"))
    print(
        f"- first token, from the LM's reply to the page's frame, {answers} answers: median "
        f"{statistics.median(delays):.0f} ms, 95th percentile {delays[int(0.95 * (answers - 1))]:.0f} ms"
    )


if __name__ == "__main__":
    main()
