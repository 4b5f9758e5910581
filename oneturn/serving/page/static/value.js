/** Shows JSON values: objects as tables, lists as lists, other values as text. */

import { element } from "./dom.js";

/** Return an element that shows a value. */
export function showValue(value) {
  if (Array.isArray(value)) return showList(value);
  if (value !== null && typeof value === "object") return showTable(value);
  return element("span.value", {}, scalarText(value));
}

/** Return an object as a table with a row for each key. */
export function showTable(object, caption = null) {
  const rows = Object.entries(object).map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, showValue(value))),
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

function showList(list) {
  if (!list.length) return element("span.muted", {}, "none");
  if (list.every((entry) => entry !== null && typeof entry === "object" && !Array.isArray(entry))) {
    return showRows(list);
  }
  return element("ul.values", {}, ...list.map((entry) => element("li", {}, showValue(entry))));
}

function showRows(list) {
  const names = [...new Set(list.flatMap((entry) => Object.keys(entry)))];
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const rows = list.map((entry) =>
    element("tr", {}, ...names.map((name) => element("td", {}, name in entry ? showValue(entry[name]) : ""))),
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
