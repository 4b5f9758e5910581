/** What a person says about an answer: right or wrong, the correct outputs, and why. */

import { element, newId } from "./dom.js";
import { createField, FieldError } from "./field.js";
import { send } from "./server.js";

/**
 * Return the controls that record feedback on an answer.
 *
 * @param {string} traceId the answer's trace.
 * @param {Object} info the agent's description.
 * @param {Object} outputs the outputs of the answer by field, to correct.
 */
export function feedbackView(traceId, info, outputs) {
  const state = element("span.state", { role: "status" });
  const comment = element("textarea", { rows: 1, id: newId("comment") });
  const error = element("div.error", { role: "alert", hidden: true });
  const fields = correctionFields(info, outputs);
  let known = readAll(fields); // as the form returns it: its order and empty fields aren't those of the answer
  let correct = null;

  const right = thumb("Right", "✓", () => judge(true));
  const wrong = thumb("Wrong", "✗", () => judge(false));
  const correction = element(
    "div.correction",
    { hidden: true },
    element("div.fields", {}, ...fields.map(([, field]) => field.element)),
    element("label", { for: comment.id }, "Comment", element("span.optional", {}, " optional")),
    comment,
    error,
    element("div.buttons", {}, element("button.primary", { type: "button", click: () => sendAll() }, "Send")),
  );

  const record = async (body) => {
    state.textContent = "Sending…";
    try {
      await send("agent/feedback", { trace_id: traceId, correct, ...body });
    } catch (failure) {
      state.textContent = "";
      error.hidden = false;
      error.textContent = failure.message;
      correction.hidden = false;
      return false;
    }
    state.textContent = "Thank you, recorded.";
    return true;
  };

  const judge = (verdict) => {
    correct = verdict;
    right.setAttribute("aria-pressed", String(verdict));
    wrong.setAttribute("aria-pressed", String(!verdict));
    correction.hidden = verdict;
    error.hidden = true;
    record({});
    if (!verdict) correction.querySelector("input, select, textarea").focus();
  };

  const sendAll = async () => {
    error.hidden = true;
    let values;
    try {
      values = readAll(fields);
    } catch (problem) {
      if (!(problem instanceof FieldError)) throw problem;
      error.hidden = false;
      error.textContent = problem.message;
      problem.control.focus();
      return;
    }
    const emptied = Object.keys(known).find((name) => !(name in values));
    if (emptied !== undefined) {
      error.hidden = false;
      error.textContent = `${emptied} is empty now, which a correction can't say: leave it as it was, and say so in the comment.`;
      return;
    }
    const changed = Object.keys(values).filter((name) => JSON.stringify(values[name]) !== JSON.stringify(known[name]));
    const expected = Object.fromEntries(changed.map((name) => [name, values[name]]));
    if (await record({ comment: comment.value, ...(changed.length ? { expected } : {}) })) {
      known = values;
      correction.hidden = true;
      wrong.focus();
    }
  };

  return element("section.feedback", { "aria-label": "Feedback" }, element("div.thumbs", {}, right, wrong, state), correction);
}

function thumb(label, sign, onClick) {
  const attributes = { type: "button", click: onClick, "aria-pressed": "false" };
  return element("button.quiet", attributes, element("span", { "aria-hidden": "true" }, sign), ` ${label}`);
}

/** The fields of the outputs, filled with the answer's; for an agent without a signature, its answer's text. */
function correctionFields(info, outputs) {
  const schema = info.outputs ?? { properties: { expected_response: { type: "string" } }, required: ["expected_response"] };
  const context = { definitions: schema.$defs ?? {}, required: true, attachment: null };
  return Object.entries(schema.properties).map(([name, property]) => {
    const field = createField(name, property, context);
    if (name in outputs) field.write(outputs[name]);
    return [name, field];
  });
}

/** Return the values of the fields that aren't empty, by name. */
function readAll(fields) {
  return Object.fromEntries(fields.map(([name, field]) => [name, field.read()]).filter(([, value]) => value !== undefined && value !== null));
}
