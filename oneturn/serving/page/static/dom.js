/** Builds elements. Text is always set as text, never as HTML. */

/**
 * Return a new element.
 *
 * @param {string} tag its tag, with classes after dots: "p.muted".
 * @param {Object} attributes attributes; a function is an event listener, false and null leave an attribute out.
 * @param {...(Node|string|null)} children its children.
 */
export function element(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const created = document.createElement(name);
  if (classes.length) created.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") created.addEventListener(key, value);
    else if (value === true) created.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) created.setAttribute(key, value);
  }
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}

/** Return a link if `url` is http(s), and the text alone otherwise: this server has no files of the agent. */
export function link(url, text) {
  const safe = safeUrl(url);
  if (!safe) return element("span", {}, text);
  return element("a", { href: safe, target: "_blank", rel: "noopener noreferrer" }, text);
}

/** Return `url` if it is absolute and its scheme is http or https, otherwise null. */
export function safeUrl(url) {
  try {
    const parsed = new URL(url);
    return ["http:", "https:"].includes(parsed.protocol) ? parsed.href : null;
  } catch {
    return null;
  }
}

/** Return a duration in milliseconds as text. */
export function duration(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 1 : 0)} s`;
}

let ids = 0;

/** Return an id that no element of the page has yet. */
export function newId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}

/** Copy a text to the clipboard, and say so on the button for a moment. */
export async function copy(text, button) {
  const label = button.textContent;
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copySelected(text, button); // browsers have no clipboard for a page from http, except this machine's
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed by the browser";
  }
  setTimeout(() => (button.textContent = label), 1500);
}

function copySelected(text, button) {
  const area = element("textarea.visually-hidden", { readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  button.focus();
  if (!isCopied) throw new Error("The browser refuses to copy.");
}
