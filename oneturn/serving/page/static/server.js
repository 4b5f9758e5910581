/** Requests to the server that the page comes from, and the events of its streams. */

import { keep, recall } from "./storage.js";

const KEY = "oneturn.api-key";
let apiKey = recall("sessionStorage", KEY);

/** An error of the server, or of the connection to it. */
export class ServerError extends Error {
  /**
   * @param {string} message what was wrong.
   * @param {string} code the error's code.
   * @param {number|null} status the HTTP status, if there is one.
   */
  constructor(message, code, status = null) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** Keep the server's API key until the tab is closed. */
export function setKey(key) {
  apiKey = key;
  keep("sessionStorage", KEY, key);
}

/** Return whether the server's API key was entered. */
export function hasKey() {
  return apiKey !== null;
}

/**
 * Send a request; return the response.
 *
 * @param {string} path a path relative to the page.
 * @param {Object|null} body a JSON body, sent with POST; null for GET.
 * @param {Object} options further headers and an AbortSignal: {headers, signal, method}.
 * @throws {ServerError} the server refuses the request or can't be reached, or the API key can't be sent.
 */
export async function send(path, body = null, { headers = {}, signal = null, method = null } = {}) {
  if (apiKey !== null && /[^ -~]/.test(apiKey)) {
    throw new ServerError("The API key has characters that no header can hold. Check what you entered.", "invalid_api_key", 401);
  }
  const options = {
    method: method ?? (body === null ? "GET" : "POST"),
    headers: {
      ...(body === null ? {} : { "Content-Type": "application/json" }),
      ...(apiKey === null ? {} : { Authorization: `Bearer ${apiKey}` }),
      ...headers,
    },
    body: body === null ? null : JSON.stringify(body),
    signal,
    redirect: "error",
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server can't be reached. Is it still running?", "connection_error");
  }
  if (!response.ok) throw await readError(response);
  return response;
}

async function readError(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // not JSON: a proxy's page
  }
  const message = error.message || `The server answered ${response.status} ${response.statusText}.`;
  return new ServerError(String(message), String(error.code || response.status), response.status);
}

/**
 * Yield the events of a stream, each as an object.
 *
 * @param {Response} response a response of server-sent events.
 * @throws {ServerError} the connection ends before the stream does.
 */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const data = eventData(block);
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The connection ended before the answer was complete.", "stream_ended");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function eventData(block) {
  const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}
