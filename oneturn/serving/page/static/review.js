/** The review of candidates: one after the other, accepted, edited or rejected. */

import { element, safeUrl } from "./dom.js";
import { createField, FieldError } from "./field.js";
import { send, setKey } from "./server.js";
import { showTable } from "./value.js";

const VERDICTS = {
  right: "A person judged the answer right.",
  corrected: "A person corrected the answer.",
  wrong: "A person judged the answer wrong, and gave no correct one.",
};
const $ = (id) => document.getElementById(id);

/** The review of one agent's candidates. */
class Review {
  constructor(info) {
    this._info = info;
    this._waiting = [...info.candidates];
    this._total = info.candidates.length;
    this._counts = { accepted: 0, rejected: 0 };
    document.title = `Review: ${info.name}`;
    $("title").textContent = `Review: ${info.name}`;
  }

  /** Show the next candidate, or that there is none. */
  show() {
    const [candidate] = this._waiting;
    if (!candidate) return this._showEnd();
    $("position").textContent = `${this._total - this._waiting.length + 1} of ${this._total}`;
    this._fields = this._createFields(candidate);
    this._error = element("div.error", { role: "alert", hidden: true });
    const heading = element("h2", { tabindex: -1 }, candidate.id);
    const later = element("button.quiet", { type: "button", click: () => this._skip() }, "Decide later");
    const buttons = element(
      "div.buttons",
      {},
      element("button.primary", { type: "button", click: () => this._accept(candidate) }, `Accept into ${this._info.split}`),
      element("button", { type: "button", click: () => this._reject(candidate) }, "Reject"),
      this._waiting.length > 1 ? later : null,
    );
    $("candidate").replaceChildren(
      element("article.candidate", {}, heading, this._provenance(candidate), ...this._groups(), this._error, buttons),
    );
    heading.focus();
    this._showAnswer(candidate);
  }

  _createFields(candidate) {
    const { schema } = this._info;
    const names = Object.keys(schema.properties ?? {}).filter((name) => name !== "id");
    return names.map((name) => {
      const required = (schema.required ?? []).includes(name) || (this._info.outputs.includes(name) && name in candidate.values);
      const field = createField(name, schema.properties[name], { definitions: schema.$defs ?? {}, required, attachment: null });
      if (name in candidate.values) field.write(candidate.values[name]);
      return [name, field];
    });
  }

  _groups() {
    const { inputs, outputs } = this._info;
    const groups = [
      ["Question", ([name]) => inputs.includes(name)],
      ["Correct answer", ([name]) => outputs.includes(name)],
      ["Other columns", ([name]) => !inputs.includes(name) && !outputs.includes(name)],
    ];
    return groups
      .map(([title, belongs]) => [title, this._fields.filter(belongs)])
      .filter(([, fields]) => fields.length)
      .map(([title, fields]) =>
        element("section", { "aria-label": title }, element("h3", {}, title), element("div.fields.wide", {}, ...fields.map(([, field]) => field.element))),
      );
  }

  _provenance(candidate) {
    const { said, by, at, note, near, expected, trace_id: traceId } = candidate.provenance;
    const entries = [];
    if (by) entries.push(["By", `${by}${at ? `, ${at.slice(0, 16).replace("T", " ")} UTC` : ""}`]);
    if (note) entries.push(["Comment", note]);
    if (near) entries.push(["Near-duplicate of", near]);
    const url = traceId && this._info.trace_url && safeUrl(this._info.trace_url.replace("{trace_id}", encodeURIComponent(traceId)));
    if (url) entries.push(["Trace", element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, "Open")]);
    else if (traceId) entries.push(["Trace", traceId]);
    const list = entries.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    this._answerPlace = element("div");
    return element(
      "section.provenance",
      { "aria-label": "Feedback" },
      element("p", {}, VERDICTS[said] ?? "Written by hand."),
      element("dl.figures", {}, ...list),
      expected ? showTable(expected, "Further expectations") : null,
      this._answerPlace,
    );
  }

  async _showAnswer(candidate) {
    const place = this._answerPlace;
    try {
      const { outputs } = await (await send(`review/candidates/${encodeURIComponent(candidate.id)}/answer`)).json();
      if (outputs && Object.keys(outputs).length) {
        place.replaceChildren(element("details.more", {}, element("summary", {}, "The agent's answer"), showTable(outputs)));
      }
    } catch (error) {
      place.replaceChildren(element("p.muted", {}, error.message));
    }
  }

  async _accept(candidate) {
    let edited;
    try {
      const invalid = $("candidate").querySelector(":invalid:not(fieldset)");
      if (invalid) throw new FieldError(`Fill in the form: ${invalid.validationMessage}`, invalid);
      edited = this._read(candidate, (field) => field.read());
    } catch (problem) {
      if (!(problem instanceof FieldError)) throw problem;
      this._fail(problem.message);
      problem.control.focus();
      return;
    }
    const known = this._fields.map(([name]) => name);
    const others = Object.entries(candidate.values).filter(([name]) => !known.includes(name));
    await this._decide(candidate, "accept", "accepted", { values: Object.fromEntries([...others, ...edited]) });
  }

  /** Return the entries of the fields' values; a null stays null where its field is still empty. */
  _read(candidate, read) {
    return this._fields
      .map(([name, field]) => [name, read(field) ?? (candidate.values[name] === null ? null : undefined)])
      .filter(([, value]) => value !== undefined);
  }

  _reject(candidate) {
    return this._decide(candidate, "reject", "rejected", {});
  }

  async _decide(candidate, action, outcome, body) {
    this._error.hidden = true;
    try {
      await send(`review/candidates/${encodeURIComponent(candidate.id)}/${action}`, body);
    } catch (error) {
      this._fail(error.message);
      return;
    }
    this._counts[outcome] += 1;
    $("status").textContent = `${candidate.id} ${outcome}.`;
    this._waiting.shift();
    this.show();
  }

  _skip() {
    const candidate = this._waiting.shift();
    const typed = this._read(candidate, (field) => {
      try {
        return field.read();
      } catch (problem) {
        if (!(problem instanceof FieldError)) throw problem;
        return undefined; // what can't be read yet
      }
    });
    this._waiting.push({ ...candidate, values: { ...candidate.values, ...Object.fromEntries(typed) } });
    this.show();
  }

  _fail(message) {
    this._error.hidden = false;
    this._error.textContent = message;
  }

  _showEnd() {
    const { accepted, rejected } = this._counts;
    $("position").textContent = "";
    const text = this._total
      ? `${accepted} accepted into ${this._info.split}, ${rejected} rejected. You can close this page, and stop the command with Ctrl-C.`
      : "There are no candidates. Collect some from traces with feedback: oneturn data from-traces";
    const heading = element("h2", { tabindex: -1 }, this._total ? "All reviewed" : "Nothing to review");
    $("candidate").replaceChildren(element("div.introduction", {}, heading, element("p", {}, text)));
    heading.focus();
  }
}

/** Keep the token of the page's address for this tab, and remove it from the address. */
function takeToken() {
  if (!location.hash) return;
  setKey(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}

takeToken();
try {
  new Review(await (await send("review/candidates")).json()).show();
} catch (error) {
  const heading = element("h2", {}, "The review isn't available");
  const text = error.status === 401 ? "Open the whole address that oneturn data review has printed; each start has another one." : error.message;
  $("candidate").replaceChildren(element("div.introduction", {}, heading, element("p", {}, text)));
}
