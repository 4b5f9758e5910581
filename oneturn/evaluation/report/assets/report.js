"use strict";

const { rows, names, compared } = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;
const WORDS = { passed: "passed", partial: "partly right", failed: "wrong", error: "error" };
const byId = (id) => document.getElementById(id);
const has = (name) => rows.some((row) => row[name] !== null && row[name] !== "" && row[name] !== undefined);
const tokens = (row) => (row.read ?? 0) + (row.written ?? 0);
const percent = (value) => `${Math.round(100 * value)}%`;
const points = (value) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(Math.round(100 * value))}`;
const seconds = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(1));

// The table's columns: cell content, sort key, whether it is numeric, and whether only wide screens show it.
const COLUMNS = [
  { name: "Row", sort: (row) => row.n, cell: opener },
  { name: "Repeat", sort: (row) => row.repeat, cell: (row) => String(row.repeat), number: true, shown: has("repeat") },
  { name: "Category", sort: (row) => row.category, cell: (row) => row.category, wide: true, shown: has("category") },
  { name: "Question and answer", sort: (row) => row.question, cell: questionAndAnswer, kind: "main" },
  { name: "Result", sort: (row) => Object.keys(WORDS).indexOf(row.state), cell: result },
  { name: "Score", sort: (row) => row.score, cell: (row) => percent(row.score), number: true },
  { name: "Change", sort: (row) => row.change, cell: changed, number: true, shown: compared },
  { name: "Seconds", sort: (row) => row.seconds, cell: (row) => (row.seconds === null ? "" : seconds(row.seconds)), number: true, wide: true },
  { name: "Tokens", sort: tokens, cell: (row) => tokens(row).toLocaleString("en"), number: true, wide: true },
  { name: "LM calls", sort: (row) => row.lm_calls, cell: (row) => String(row.lm_calls ?? ""), number: true, wide: true, shown: has("lm_calls") },
].filter((column) => column.shown !== false);

const view = { page: 0, column: COLUMNS[0], falling: false, open: new Set(), rows };

/** Create an element; text children are inserted as text, never as HTML. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

function opener(row) {
  const open = view.open.has(row.n);
  const attributes = { type: "button", class: "open", "aria-expanded": String(open), "aria-controls": open ? `detail-${row.n}` : null, id: `open-${row.n}`, "aria-label": `${row.id}: details` };
  return element("button", attributes, row.id);
}

function questionAndAnswer(row) {
  const answer = row.state === "error" ? element("span", { class: "answer wrong" }, row.error) : element("span", { class: "answer" }, row.answer);
  return element("div", { class: "exchange" }, element("span", { class: "question" }, row.question), answer);
}

function result(row) {
  return element("span", { class: `pill ${row.state}` }, WORDS[row.state]);
}

function changed(row) {
  if (row.change === null) return "";
  const kind = row.change > 1e-9 ? "gain" : row.change < -1e-9 ? "loss" : "same";
  return element("span", { class: kind }, points(row.change));
}

function text(value) {
  if (typeof value === "string") return value;
  const simple = Array.isArray(value) && value.length && value.every((each) => typeof each !== "object");
  return simple ? value.join(", ") : JSON.stringify(value, null, 1);
}

/** A section with a heading, or an empty string if it has no content. */
function part(heading, ...content) {
  const given = content.filter((each) => each !== null && each !== "" && each !== undefined);
  return given.length ? element("section", {}, element("h4", {}, heading), ...given) : "";
}

function fields(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== "" && value !== undefined);
  return given.length ? element("dl", {}, ...given.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, text(value))])) : null;
}

function step(call) {
  const given = call.arguments && typeof call.arguments === "object" ? fields(call.arguments) : call.arguments;
  const output = call.output === null || call.output === undefined ? null : element("pre", {}, text(call.output));
  return element("li", {}, element("b", {}, call.name), given ?? "", output);
}

function list(values) {
  return values.length ? element("ul", {}, ...values.map((value) => element("li", {}, value))) : null;
}

function details(row) {
  const metrics = row.metrics.flatMap(([name, score, feedback]) => [[name, score], [`${name}: feedback`, feedback]]);
  const before = row.before;
  const cost = { "LM calls": row.lm_calls, "tokens read": row.read, "tokens written": row.written, seconds: row.seconds, "US dollars": row.cost, tries: row.tries, repeat: row.repeat, trace: row.trace };
  const left = [
    part("Error", row.error && element("pre", { class: "wrong" }, row.error)),
    part("Answer", fields(row.outputs)),
    part("Example", fields(row.labels)),
    part("Feedback", row.feedback),
    part("Metrics", fields({ score: row.score, ...Object.fromEntries(metrics) })),
    before ? part(names[0], fields({ score: before.score, answer: before.answer, feedback: before.feedback, error: before.error })) : "",
  ];
  const steps = row.steps.length ? element("ol", { class: "steps" }, ...row.steps.map(step)) : element("p", { class: "quiet" }, "No tool calls recorded.");
  const right = [part("Tool calls", steps), part("Sources", list(row.sources)), part("Cost", fields(cost))];
  const head = element("h3", {}, row.question || row.id);
  return element("div", { class: "detail" }, head, element("div", { class: "halves" }, element("div", {}, ...left), element("div", {}, ...right)));
}

function line(row) {
  const cells = COLUMNS.map((column, place) => {
    const kind = [column.kind, column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");
    const heads = place ? { role: "cell" } : { role: "rowheader", scope: "row" };
    return element(place ? "td" : "th", { class: kind || null, ...heads }, column.cell(row));
  });
  const toggle = (event) => {
    if (!event.target.closest("button") && String(window.getSelection())) return; // the user is selecting text
    view.open.has(row.n) ? view.open.delete(row.n) : view.open.add(row.n);
    draw();
    byId(`open-${row.n}`).focus();
  };
  return element("tr", { class: "line", role: "row", click: toggle }, ...cells);
}

function below(row) {
  return element("tr", { id: `detail-${row.n}`, class: "below", role: "row" }, element("td", { role: "cell", colspan: COLUMNS.length }, details(row)));
}

function heading(column) {
  const current = column === view.column;
  const sort = current ? (view.falling ? "descending" : "ascending") : "none";
  const kind = [column.kind, column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");
  const click = () => {
    view.falling = current && !view.falling;
    view.column = column;
    view.page = 0;
    refresh();
    byId("table").querySelectorAll("thead button")[COLUMNS.indexOf(column)].focus();
  };
  return element("th", { scope: "col", role: "columnheader", "aria-sort": sort, class: kind || null }, element("button", { type: "button", click }, column.name));
}

function searched(row) {
  row.searched ??= JSON.stringify([row.id, row.question, row.answer, row.error, row.feedback, row.labels, row.outputs, row.trace]).toLowerCase();
  return row.searched;
}

function changes(row, wanted) {
  if (row.before === null) return false;
  if (wanted === "flipped") return (row.before.state === "passed") !== (row.state === "passed");
  const kind = row.change > 1e-9 ? "better" : row.change < -1e-9 ? "worse" : "same";
  return kind === wanted;
}

function matches(row, words, category, state, change) {
  if (category && row.category !== category) return false;
  if (state && (state === "not-passed" ? row.state === "passed" : row.state !== state)) return false;
  if (change && !changes(row, change)) return false;
  return words.every((word) => searched(row).includes(word));
}

function compare(one, other) {
  const [a, b] = [view.column.sort(one), view.column.sort(other)];
  if (a === b) return one.n - other.n;
  if (a === null || a === undefined) return 1; // missing values are last in both directions
  if (b === null || b === undefined) return -1;
  return (view.falling ? -1 : 1) * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

function refresh() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean).map((word) => JSON.stringify(word).slice(1, -1));
  const [category, state, change] = ["category", "state", "change"].map((id) => byId(id)?.value ?? "");
  view.rows = rows.filter((row) => matches(row, words, category, state, change)).sort(compare);
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(view.rows.length / PAGE));
  view.page = Math.min(view.page, pages - 1);
  const shown = view.rows.slice(view.page * PAGE, (view.page + 1) * PAGE);
  const table = byId("table");
  table.tHead.replaceChildren(element("tr", { role: "row" }, ...COLUMNS.map(heading)));
  table.tBodies[0].replaceChildren(...shown.flatMap((row) => (view.open.has(row.n) ? [line(row), below(row)] : [line(row)])));
  byId("status").textContent = `${view.rows.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  byId("page").textContent = `Page ${view.page + 1} of ${pages}`;
  byId("previous").disabled = view.page === 0;
  byId("next").disabled = view.page === pages - 1;
  document.querySelector(".pages").hidden = pages === 1;
}

function turn(by) {
  view.page += by;
  draw();
  byId("rows").scrollIntoView();
}

const filters = document.querySelector(".filters");
filters.addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["input", "change"]) {
  filters.addEventListener(kind, () => { view.page = 0; refresh(); });
}
filters.addEventListener("reset", () => setTimeout(() => { view.page = 0; refresh(); }));
for (const button of document.querySelectorAll("button[data-filter]")) {
  button.addEventListener("click", () => {
    filters.reset(); // the reset event redraws later, with the value set here
    byId(button.dataset.filter).value = button.value;
    byId("rows").scrollIntoView();
    byId(button.dataset.filter).focus({ preventScroll: true });
  });
}
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
refresh();
