/** What the browser keeps for the page: in this tab, or for later. A browser may forbid it, or have no room. */

/** Return a kept text, or null. `area` is "sessionStorage" or "localStorage". */
export function recall(area, key) {
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

/** Keep a text, where the browser allows it. */
export function keep(area, key, text) {
  try {
    window[area].setItem(key, text);
  } catch {
    // the page works without
  }
}
