/** The page: the agent's introduction, the form, and the conversation. */

import { element } from "./dom.js";
import { feedbackView } from "./feedback.js";
import { FieldError } from "./field.js";
import { InputForm } from "./form.js";
import { hasKey, readEvents, send, ServerError, setKey } from "./server.js";
import { snippetButtons } from "./snippet.js";
import { Turn } from "./turn.js";

const PATH = "v1/responses";
const $ = (id) => document.getElementById(id);

/** The conversation with one agent. */
class Conversation {
  constructor(info) {
    this._info = info;
    this._form = new InputForm(info, $("inputs"));
    this._items = []; // the input and output items of earlier turns
    this._abort = null;
    this._turn = null; // the last one
    this._keepsHistory = !info.message || info.message.history !== null;
    this._takesQuestion = !info.message || info.message.question !== null;
    $("question").hidden = !this._takesQuestion;
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this._ask();
    });
    $("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this._ask();
      }
    });
    $("stop").addEventListener("click", () => this._abort?.abort());
    $("new-conversation").addEventListener("click", () => this._clear());
    $("ask").disabled = false; // before, the browser would submit the form itself
  }

  async _ask() {
    if (this._abort) return;
    if (this._turn?.status === "waiting") return this._refuse("Approve or refuse the waiting call first.", this._turn.undecided);
    const question = $("question").value.trim();
    if (this._takesQuestion && !question) return this._refuse("Write a question first.", $("question"));
    let inputs, parts;
    try {
      inputs = this._form.read();
      parts = await this._form.parts();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this._form.show(true);
      return this._refuse(error.message, error.control);
    }
    if (this._abort) return; // asked twice while files were read
    this._form.show(false);
    $("introduction").hidden = true;
    $("question").value = "";
    const turn = new Turn(question, inputs, this._info, announce);
    this._turn = turn;
    $("turns").append(turn.element);
    const earlier = this._keepsHistory ? this._items : [];
    await this._run(turn, [...earlier, ...this._message(question, parts)], inputs);
  }

  _message(question, parts) {
    if (!parts.length) return question ? [{ role: "user", content: question }] : [];
    const text = question ? [{ type: "input_text", text: question }] : [];
    return [{ role: "user", content: [...text, ...parts] }];
  }

  async _run(turn, items, inputs) {
    const body = { model: this._info.name, input: items, stream: true, store: false };
    if (Object.keys(inputs).length) body.custom_inputs = inputs;
    $("form-error").hidden = true;
    this._setRunning(true);
    turn.begin((item, approve, reason) => {
      if (this._abort) return this._refuse("Wait until the run has ended, or stop it.");
      if (turn !== this._turn) return this._refuse("The conversation has gone on; this call can't be decided any more.");
      const verdict = { type: "mcp_approval_response", approval_request_id: item.id, approve };
      if (reason) verdict.reason = reason;
      this._run(turn, [...items, ...turn.response.output, verdict], inputs);
      return true;
    });
    isAtEnd = true;
    follow();
    try {
      const options = { signal: this._abort.signal, headers: { "x-mlflow-return-trace-id": "true" } };
      const response = await send(PATH, body, options);
      for await (const event of readEvents(response)) {
        turn.read(event);
        follow();
      }
      if (turn.status === "running") {
        turn.fail({ code: "stream_ended", message: "The connection ended before the answer was complete." });
      }
    } catch (error) {
      if (error.name === "AbortError") turn.stop();
      else if (error instanceof ServerError) {
        turn.fail(error);
        if (error.status === 401) askKey(error.message);
      } else throw error;
    } finally {
      this._setRunning(false);
      follow();
    }
    turn.showApprovals();
    if (turn.status === "completed") {
      this._items = [...items, ...turn.response.output];
      if (turn.traceId) turn.append(feedbackView(turn.traceId, this._info, turn.outputs));
      focusQuestion();
    }
    if (turn.status !== "waiting") turn.append(snippetButtons(body, hasKey()));
    follow();
  }

  _setRunning(running) {
    this._abort = running ? new AbortController() : null;
    $("ask").hidden = running;
    $("stop").hidden = !running;
    $("new-conversation").hidden = running || !this._keepsHistory;
  }

  /** Say why something isn't done; return false. */
  _refuse(message, control) {
    $("form-error").hidden = false;
    $("form-error").textContent = message;
    control?.focus();
    return false;
  }

  _clear() {
    this._items = [];
    this._turn = null;
    $("form-error").hidden = true;
    $("turns").replaceChildren();
    $("introduction").hidden = false;
    $("new-conversation").hidden = true;
    $("question").focus();
  }
}

let isAtEnd = true; // as the reader scrolled last
let isFollowing = false; // whether the next frame scrolls
let followedTo = 0;

addEventListener("scroll", () => {
  const root = document.scrollingElement;
  if (root.scrollHeight - root.scrollTop - root.clientHeight < 80) isAtEnd = true;
  else if (root.scrollTop < followedTo - 1) isAtEnd = false; // otherwise the page has grown since
});

/** Keep the end of the page in sight while it grows, unless the reader has scrolled up; once a frame, as each lays it out. */
function follow() {
  if (isFollowing) return;
  isFollowing = true;
  requestAnimationFrame(() => {
    isFollowing = false;
    if (!isAtEnd) return;
    const root = document.scrollingElement;
    root.scrollTop = root.scrollHeight;
    followedTo = root.scrollTop;
  });
}

/** Put the focus on the question, unless the reader is at something else. */
function focusQuestion() {
  const focused = document.activeElement;
  if (focused === document.body || $("composer").contains(focused)) $("question").focus({ preventScroll: true });
}

function announce(text) {
  $("status").textContent = text;
}

function introduce(info) {
  document.title = info.name;
  $("agent-name").textContent = info.name;
  $("agent-version").textContent = info.version ? `version ${info.version}` : "";
  const tools = (info.tools ?? []).map((tool) =>
    element("li", {}, element("code", {}, tool.name), " ", element("span", {}, tool.description ?? "")),
  );
  const choose = (question) => {
    $("question").value = question;
    $("question").focus();
  };
  const questions = (info.example_questions ?? []).map((question) =>
    element("button", { type: "button", click: () => choose(question) }, question),
  );
  const list = tools.length ? [element("h3", {}, "Tools"), element("ul.tools", {}, ...tools)] : [];
  $("introduction").replaceChildren(element("h2", {}, `Ask ${info.name}`), element("div.questions", {}, ...questions), ...list);
  $("introduction").hidden = false;
}

/** Ask for the API key, until it was entered: without it, the page can do nothing. */
function askKey(message) {
  const dialog = $("key-dialog");
  $("key-error").hidden = !message;
  $("key-error").textContent = message ?? "";
  $("key").value = "";
  dialog.showModal();
  const stay = (event) => event.preventDefault();
  const reopen = () => dialog.showModal(); // a browser may close it in spite of `stay`, such as at a second Escape
  dialog.addEventListener("cancel", stay);
  dialog.addEventListener("close", reopen);
  return new Promise((resolve) => {
    const enter = () => {
      dialog.removeEventListener("cancel", stay);
      dialog.removeEventListener("close", reopen);
      resolve(setKey($("key").value.trim()));
    };
    $("key-form").addEventListener("submit", enter, { once: true });
  });
}

async function readInfo() {
  for (;;) {
    try {
      return await (await send("agent/info")).json();
    } catch (error) {
      if (error.status !== 401) throw error;
      await askKey(hasKey() ? error.message : null);
    }
  }
}

try {
  const info = await readInfo();
  introduce(info);
  new Conversation(info);
  $("question").focus();
} catch (error) {
  $("introduction").replaceChildren(element("h2", {}, "The agent isn't available"), element("p", {}, error.message));
  $("introduction").hidden = false;
}
