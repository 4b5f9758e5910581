/** A tool call that waits for a person's approval. */

import { element, newId } from "./dom.js";
import { exactText, showTable, showValue, visible } from "./value.js";

/**
 * Return the view of an approval request, with all arguments in sight.
 *
 * @param {Object} item the `mcp_approval_request` item.
 * @param {Function} answer called with the verdict and the reason; returns whether it takes them, and isn't called again then.
 */
export function approvalView(item, answer) {
  const reason = element("input", { type: "text", id: newId("reason"), autocomplete: "off" });
  const buttons = element("div.buttons");
  const decide = (approve) => {
    const text = reason.value.trim();
    if (!answer(approve, text)) return;
    view.dataset.state = approve ? "approved" : "refused";
    const verdict = approve ? "Approved" : "Refused";
    controls.replaceWith(element("p.verdict", {}, text ? `${verdict}: ${text}` : `${verdict}.`));
  };
  buttons.append(
    element("button.primary", { type: "button", click: () => decide(true) }, "Approve"),
    element("button", { type: "button", click: () => decide(false) }, "Refuse"),
  );
  const controls = element(
    "div.controls",
    {},
    element("label", { for: reason.id }, "Reason", element("span.optional", {}, " optional, shown to the agent")),
    reason,
    buttons,
  );
  const title = element("h3", { id: newId("approval"), tabindex: -1 }, "May the agent run ", element("code", {}, item.name), "?");
  const view = element("section.approval", { "aria-labelledby": title.id }, title, showArguments(item.arguments), controls);
  return view;
}

function showArguments(text) {
  let values;
  try {
    values = JSON.parse(text);
  } catch {
    return rawText(text);
  }
  if (!keepsNumbers(text)) return rawText(text);
  if (values === null || typeof values !== "object" || Array.isArray(values)) return showValue(values, exactText);
  return Object.keys(values).length ? showTable(values, null, exactText) : element("p.muted", {}, "It has no arguments.");
}

function rawText(text) {
  return element("pre", { tabindex: 0, role: "group", "aria-label": "Arguments" }, visible(text));
}

/** Whether JavaScript shows all numbers of a JSON text as they are: it rounds long ones. */
function keepsNumbers(text) {
  const numbers = text.replace(/"(?:[^"\\]|\\.)*"/g, '""').match(/-?\d[\d.eE+-]*/g) ?? [];
  return numbers.every((number) => String(Number(number)) === number);
}
