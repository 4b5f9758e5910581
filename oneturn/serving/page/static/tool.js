/** The steps of a run: tool calls and reasoning, each folded open and shut. */

import { duration, element } from "./dom.js";
import { formatJson } from "./value.js";

const LONG = 100;

/** One tool call: its arguments, its progress, its result and its time. */
export class ToolView {
  /** @param {Object} item the `mcp_call` or `function_call` item. */
  constructor(item) {
    this.name = item.name;
    this.id = item.id;
    this.callId = item.call_id;
    this.done = false;
    this._started = performance.now();
    this._state = element("span.state", {}, "running");
    this._hint = element("span.hint");
    this._time = element("span.time");
    this._arguments = element("pre", { tabindex: 0, role: "group", "aria-label": `Arguments of ${item.name}` });
    this._progress = element("p.progress", { hidden: true });
    this._bar = element("progress", { max: 1, "aria-label": `Progress of ${item.name}`, hidden: true });
    this._result = element("div.result");
    this.element = element(
      "details.step.tool",
      { "data-state": "running" },
      element(
        "summary",
        {},
        element("span.name", {}, item.name),
        this._hint,
        element("span.end", {}, this._state, this._time),
      ),
      element("div.body", {}, element("h3", {}, "Arguments"), this._arguments, this._progress, this._bar, this._result),
    );
    this.setArguments(item.arguments || "");
  }

  /** Show the arguments, a JSON text. */
  setArguments(text) {
    this._arguments.textContent = formatJson(text);
    this._hint.textContent = hint(text);
  }

  /** Show what the tool reports while it runs. */
  setProgress({ message, fraction }) {
    this._progress.hidden = !message;
    this._progress.textContent = message || "";
    this._bar.hidden = typeof fraction !== "number";
    if (typeof fraction === "number") this._bar.value = fraction;
    this._state.textContent = typeof fraction === "number" ? `${Math.round(fraction * 100)} %` : "running";
  }

  /** Show the result of the finished call. */
  finish(output, failed) {
    this.done = true;
    this._bar.hidden = true;
    this._time.textContent = duration(performance.now() - this._started);
    this._state.textContent = failed ? "failed" : "";
    this.element.dataset.state = failed ? "failed" : "done";
    this._result.replaceChildren(
      element("h3", {}, failed ? "Error" : "Result"),
      element("pre", { tabindex: 0, role: "group", "aria-label": `Result of ${this.name}` }, formatJson(output ?? "")),
    );
  }

  /** Mark a call whose run ended before it did. */
  abandon() {
    if (!this.done) this.finish("The run ended before this tool did.", true);
  }
}

/** Return the view of a reasoning item, and a function that adds text to it. */
export function reasoningView() {
  const text = element("p.text");
  const view = element("details.step.reasoning", {}, element("summary", {}, element("span.name", {}, "Reasoning")), text);
  view.open = true;
  return { element: view, add: (delta) => text.append(delta), isEmpty: () => text.textContent === "" };
}

/** The arguments in one line, for the folded call. */
function hint(text) {
  let values;
  try {
    values = Object.values(JSON.parse(text));
  } catch {
    return "";
  }
  const line = values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join(", ");
  return line.length > LONG ? `${line.slice(0, LONG)}…` : line;
}
