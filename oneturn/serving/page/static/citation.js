/** The sources that an answer cites, with their passages. */

import { element, link } from "./dom.js";

/**
 * Return the cited sources of an answer, in order: {number, title, url, id, passage, start, end}.
 *
 * @param {Object[]} annotations the `url_citation` annotations of the answer.
 * @param {Object[]} items the output items of the run, whose tools returned the sources.
 */
export function citedSources(annotations, items) {
  const returned = items.flatMap((item) => (item.sources ?? []).map((source) => ({ ...source, output: item.output ?? "" })));
  return annotations
    .filter((annotation) => annotation.type === "url_citation")
    .map((annotation, index) => {
      const source = returned.find(({ title, url }) => title === annotation.title && url === annotation.url);
      return {
        number: index + 1,
        title: annotation.title || annotation.url || `Source ${index + 1}`,
        url: annotation.url,
        id: source?.id ?? null,
        passage: source ? passage(source, returned) : null,
        start: annotation.start_index,
        end: annotation.end_index,
      };
    });
}

/** The text of a source in the output of its tool, where it follows its id in brackets. */
function passage(source, returned) {
  const mark = `[${source.id}] `;
  const start = source.output.startsWith(mark) ? 0 : source.output.indexOf(`\n${mark}`) + 1;
  if (!source.output.startsWith(mark, start)) return source.output;
  const ends = returned
    .map((other) => source.output.indexOf(`\n[${other.id}] `, start + mark.length))
    .filter((end) => end >= 0);
  return source.output.slice(start + mark.length, Math.min(...ends, source.output.length));
}

/** Return the text of an answer as nodes; a mark such as [id] of a cited source leads to it. */
export function markedText(text, sources, listId) {
  const characters = [...text]; // the server counts characters, not the units of UTF-16
  const spans = sources
    .filter(({ start, end }) => characters[start] === "[" && characters[end - 1] === "]")
    .sort((one, other) => one.start - other.start);
  const nodes = [];
  let position = 0;
  for (const source of spans) {
    if (source.start < position) continue;
    nodes.push(characters.slice(position, source.start).join(""), mark(source, listId));
    position = source.end;
  }
  return [...nodes, characters.slice(position).join("")];
}

function mark(source, listId) {
  const id = `${listId}-${source.number}`;
  const onClick = (event) => {
    event.preventDefault();
    const target = document.getElementById(id);
    target.open = true;
    target.querySelector("summary").focus();
  };
  return element("a.mark", { href: `#${id}`, click: onClick, "aria-label": `Source ${source.number}: ${source.title}` }, String(source.number));
}

/** Return the list of the sources, each with its passage folded. */
export function sourceList(sources, listId) {
  const entries = sources.map((source) =>
    element(
      "details.source",
      { id: `${listId}-${source.number}` },
      element("summary", {}, element("span.number", {}, String(source.number)), element("span", {}, source.title)),
      source.passage ? element("blockquote", {}, source.passage) : element("p.muted", {}, "The tool returned no passage."),
      source.url ? element("p.muted", {}, link(source.url, source.url)) : null,
    ),
  );
  return element("section.sources", { "aria-label": "Sources" }, element("h3", {}, "Sources"), ...entries);
}
