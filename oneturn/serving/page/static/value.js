/** Shows JSON values: objects as tables, lists as lists, other values as text. */

import { element } from "./dom.js";

/** Return an element that shows a value; `scalar` returns the text of a value that isn't an object or a list. */
export function showValue(value, scalar = scalarText) {
  if (Array.isArray(value)) return showList(value, scalar);
  if (value !== null && typeof value === "object") return showTable(value, null, scalar);
  return element("span.value", {}, scalar(value));
}

/** Return an object as a table with a row for each key. */
export function showTable(object, caption = null, scalar = scalarText) {
  const rows = Object.entries(object).map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, visible(name)), element("td", {}, showValue(value, scalar))),
  );
  if (!rows.length) return element("span.muted", {}, "empty");
  const title = caption === null ? null : element("caption", {}, caption);
  return element("div.scroll", {}, element("table.values", {}, title, element("tbody", {}, ...rows)));
}

/** Return a value as JSON text with two spaces of indent, or a text that isn't JSON unchanged. */
export function formatJson(value) {
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

/** Return a value as JSON, so that `true` and `"yes"` differ, with invisible characters as escapes. */
export function exactText(value) {
  return visible(JSON.stringify(value));
}

/** Return a text with escapes for control characters and those that change the direction of writing. */
export function visible(text) {
  const hidden = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  return text.replace(hidden, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function showList(list, scalar) {
  if (!list.length) return element("span.muted", {}, "none");
  if (list.every((entry) => entry !== null && typeof entry === "object" && !Array.isArray(entry))) {
    return showRows(list, scalar);
  }
  return element("ul.values", {}, ...list.map((entry) => element("li", {}, showValue(entry, scalar))));
}

function showRows(list, scalar) {
  const names = [...new Set(list.flatMap((entry) => Object.keys(entry)))];
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, visible(name))));
  const rows = list.map((entry) =>
    element("tr", {}, ...names.map((name) => element("td", {}, name in entry ? showValue(entry[name], scalar) : ""))),
  );
  return element(
    "div.scroll",
    { tabindex: 0, role: "group", "aria-label": "Table" },
    element("table.values", {}, element("thead", {}, head), element("tbody", {}, ...rows)),
  );
}

function scalarText(value) {
  if (value === null || value === undefined) return "–";
  if (value === true) return "yes";
  if (value === false) return "no";
  return String(value);
}
