/** One question and what the agent does until its answer. */

import { approvalView } from "./approval.js";
import { citedSources, markedText, sourceList } from "./citation.js";
import { duration, element, newId, safeUrl } from "./dom.js";
import { reasoningView, ToolView } from "./tool.js";
import { showTable } from "./value.js";

const ENDINGS = ["response.completed", "response.incomplete", "response.failed"];

/** The view of one turn; `read` each event of its streams. */
export class Turn {
  /**
   * @param {string} question the question.
   * @param {Object} inputs the other inputs.
   * @param {Object} info the agent's description.
   * @param {Function} announce says a text to screen readers.
   */
  constructor(question, inputs, info, announce) {
    this._info = info;
    this._announce = announce;
    this._tools = new Map(); // by the item's id
    this._reasoning = new Map();
    this._text = "";
    this._items = [];
    this._error = null;
    this.response = null;
    this.status = "running";
    this._steps = element("div.steps");
    this._answer = element("div.answer", { hidden: true });
    this._end = element("div.end-of-turn");
    this._waiting = element("p.waiting", {}, "Working…");
    const heading = element("h2.question", {}, question || "(no question)");
    const details = Object.keys(inputs).length
      ? element("details.given", {}, element("summary", {}, "Inputs"), showTable(inputs))
      : null;
    this.element = element("article.turn", { "data-state": "running" }, heading, details, this._steps, this._answer, this._waiting, this._end);
  }

  /** Start to measure a request; `onApproval` takes the item, the verdict and the reason of an approval, or returns false. */
  begin(onApproval) {
    this._onApproval = onApproval;
    this._started = performance.now();
    this._firstToken = null;
    this._error = null;
    this._setStatus("running");
    this._waiting.hidden = false;
    this._end.replaceChildren();
  }

  /** Show one event. */
  read(event) {
    const { type } = event;
    if (event.progress) this._readProgress(event.progress);
    if (type === "response.output_item.added") this._add(event.item);
    else if (type === "response.output_item.done") this._finish(event.item);
    else if (type === "response.mcp_call_arguments.done" || type === "response.function_call_arguments.done") {
      this._tools.get(event.item_id)?.setArguments(event.arguments);
    } else if (type === "response.reasoning_summary_text.delta" || type === "response.reasoning_text.delta") {
      this._reasoning.get(event.item_id)?.add(event.delta);
    } else if (type === "response.output_text.delta" || type === "response.refusal.delta") this._addText(event.delta);
    else if (type === "error") this._error = event.error ?? event;
    else if (ENDINGS.includes(type)) this._readEnding(event.response);
  }

  /** Show that the run ended without an answer, for an error with `code` and `message`. */
  fail({ code, message }) {
    this._close("failed");
    const title = element("p.title", {}, "The agent couldn't answer");
    this._end.append(element("div.error", { role: "alert" }, title, element("p", {}, message), element("p.code", {}, String(code))));
  }

  /** Show that a person stopped the run. */
  stop() {
    this._close("stopped");
    this._end.append(element("p.note", {}, "Stopped. What the agent had written stays above; it isn't part of the conversation."));
    this._announce("Stopped.");
  }

  /** Add an element below the answer. */
  append(child) {
    this._end.append(child);
  }

  /** The id of the trace of the last request, if the server records one. */
  get traceId() {
    const id = this.response?.metadata?.trace_id;
    return typeof id === "string" && id.startsWith("tr-") ? id : null;
  }

  /** The heading of the first call that waits for a verdict, to focus. */
  get undecided() {
    return this._steps.querySelector(".approval:not([data-state]) h3");
  }

  /** The outputs of the answer, by field. */
  get outputs() {
    const answer = this._info.message ? this._info.message.answer : "expected_response";
    return { ...(answer ? { [answer]: this._text } : {}), ...(this.response?.custom_outputs ?? {}) };
  }

  _add(item) {
    if (item.type === "mcp_call" || item.type === "function_call") {
      const view = new ToolView(item);
      this._tools.set(item.id, view);
      this._steps.append(view.element);
      this._announce(`Running ${item.name}.`);
    } else if (item.type === "reasoning") {
      const view = reasoningView();
      this._reasoning.set(item.id, view);
      this._steps.append(view.element);
    } else if (item.type === "message") this._setText("");
  }

  _finish(item) {
    this._items.push(item);
    if (item.type === "mcp_call") {
      const error = item.error?.content?.map((part) => part.text).join("\n") ?? item.error;
      if (!this._tools.has(item.id)) this._add(item);
      const tool = this._tools.get(item.id);
      tool.setArguments(item.arguments);
      tool.finish(item.status === "failed" || error ? String(error ?? "") : item.output, item.status === "failed");
    } else if (item.type === "function_call") {
      this._tools.get(item.id)?.setArguments(item.arguments);
    } else if (item.type === "function_call_output") {
      const tool = [...this._tools.values()].find((view) => view.callId === item.call_id);
      tool?.finish(item.output, item.is_error === true);
    } else if (item.type === "reasoning") {
      const view = this._reasoning.get(item.id);
      if (view?.isEmpty()) view.add((item.summary ?? []).map((part) => part.text).join("\n"));
    }
  }

  /** Show the calls that wait for an approval; the stream that asks for them has ended. */
  showApprovals() {
    const waiting = this.status === "waiting" ? this.response.output : [];
    for (const item of waiting.filter(({ type }) => type === "mcp_approval_request")) {
      const view = approvalView(item, (approve, reason) => this._onApproval(item, approve, reason));
      this._steps.append(view);
      view.querySelector("h3").focus();
    }
  }

  _readProgress(progress) {
    const open = [...this._tools.values()].filter((view) => !view.done);
    const view = this._tools.get(progress.item_id) ?? open.findLast((each) => each.name === progress.name);
    view?.setProgress(progress);
  }

  _addText(delta) {
    if (this._firstToken === null && delta) this._firstToken = performance.now() - this._started;
    this._answer.hidden = false;
    this._waiting.hidden = true;
    this._text += delta;
    if (this._answer.lastChild) this._answer.lastChild.appendData(delta); // a text, until the answer is complete
    else this._answer.append(delta);
  }

  _setText(text) {
    this._text = text;
    this._answer.replaceChildren(text);
    this._answer.hidden = !text;
  }

  _readEnding(response) {
    this.response = response;
    if (response.status === "completed") this._complete(response);
    else if (response.status === "incomplete") {
      const reason = response.incomplete_details?.reason ?? "no reason given";
      this.fail({ code: reason, message: "The run ended before the answer was complete." });
    } else this.fail(this._error ?? response.error ?? { code: "server_error", message: "The run failed." });
  }

  _complete(response) {
    const approvals = response.output.some((item) => item.type === "mcp_approval_request");
    this._close(approvals ? "waiting" : "completed");
    const parts = response.output.filter((item) => item.type === "message").flatMap((item) => item.content ?? []);
    const text = parts.map((part) => part.text ?? part.refusal ?? "").join("");
    const hasAnswer = response.metadata?.answer_field !== "";
    const sources = citedSources(parts.flatMap((part) => part.annotations ?? []), this._items);
    const listId = newId("source");
    this._setText(hasAnswer ? text : "");
    this._answer.replaceChildren(...markedText(this._text, sources, listId));
    const outputs = response.custom_outputs ?? {};
    if (sources.length) this._end.append(sourceList(sources, listId));
    if (Object.keys(outputs).length) {
      this._end.append(element("section.outputs", { "aria-label": "Outputs" }, element("h3", {}, "Outputs"), showTable(outputs)));
    }
    if (approvals) this._announce("A tool call waits for your approval.");
    else this._announce(`Answer: ${this._text}`);
    this._end.append(this._figures(response));
  }

  _figures(response) {
    const { usage, metadata = {} } = response;
    const figures = [];
    if (this._firstToken !== null) figures.push(["First token", duration(this._firstToken)]);
    figures.push(["Total", duration(performance.now() - this._started)]);
    if (usage) figures.push(["Tokens", `${usage.input_tokens} in, ${usage.output_tokens} out`]);
    if (metadata.cost_usd) figures.push(["Cost", `$${metadata.cost_usd}`]);
    const list = figures.flatMap(([name, value]) => [element("div", {}, element("dt", {}, name), element("dd", {}, value))]);
    const link = this.traceId && this._info.trace_url && safeUrl(this._info.trace_url.replace("{trace_id}", encodeURIComponent(this.traceId)));
    if (link) {
      const anchor = element("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, "Open");
      list.push(element("div", {}, element("dt", {}, "Trace"), element("dd", {}, anchor)));
    } else if (this.traceId) {
      list.push(element("div", {}, element("dt", {}, "Trace"), element("dd.code", {}, this.traceId)));
    }
    return element("dl.figures", {}, ...list);
  }

  _close(status) {
    this._waiting.hidden = true;
    for (const tool of this._tools.values()) if (status !== "waiting") tool.abandon();
    for (const { element: view } of this._reasoning.values()) view.open = false;
    this._setStatus(status);
  }

  _setStatus(status) {
    this.status = status;
    this.element.dataset.state = status;
  }
}
