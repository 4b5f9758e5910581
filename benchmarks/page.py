"""``python -m benchmarks.page [--answers 30]``: how long after the server sends the first token the page shows it.

The server's part is the time at which the first text delta is handed to the socket; the page's is the first animation
frame in which the answer has text. Both are read from the machine's clock, in one process and in Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time

import dspy
import mlflow
from playwright.sync_api import sync_playwright
from starlette.types import Message, Receive, Scope, Send

import oneturn
from benchmarks.machine import ran_on
from oneturn.serving.app import AgentApplication, application
from oneturn.serving.server import running_application
from oneturn.testing import ScriptedLM

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


class Clock:
    """An ASGI application that notes when the first text delta of each response is sent."""

    def __init__(self, app: AgentApplication):
        self._app = app
        self.sent: list[float] = []
        self.stop = app.stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        waiting = True

        async def note(message: Message) -> None:
            nonlocal waiting
            if waiting and b"response.output_text.delta" in message.get("body", b""):
                waiting = False
                self.sent.append(1000 * time.time())
            await send(message)

        await self._app(scope, receive, note)


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
    program.set_lm(ScriptedLM(*[REPLY] * answers))
    clock = Clock(application(oneturn.ResponsesAdapter(program), loopback=True))
    delays = []
    with running_application(clock) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(url)
        for number in range(answers):
            page.evaluate(OBSERVE.replace("BEFORE", str(number)))
            page.get_by_label("Question").fill("What does it cost?")
            page.keyboard.press("Enter")
            delays.append(page.evaluate("window.shown") - clock.sent[number])
            page.get_by_role("button", name="Ask", exact=True).wait_for()
        browser.close()
    delays.sort()
    print(ran_on("dspy", "mlflow", "uvicorn"))
    print(
        f"- first token, from the server's send to the page's frame, {answers} answers: median "
        f"{statistics.median(delays):.0f} ms, 95th percentile {delays[int(0.95 * (answers - 1))]:.0f} ms"
    )


if __name__ == "__main__":
    main()
