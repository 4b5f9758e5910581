/** The form of the agent's inputs besides the question, as fields or as JSON; remembered in this browser. */

import { element } from "./dom.js";
import { createField, FieldError } from "./field.js";
import { keep, recall } from "./storage.js";

/** The inputs of one agent. */
export class InputForm {
  /**
   * @param {Object} info the agent's description at /agent/info.
   * @param {Element} place where the form is shown.
   */
  constructor(info, place) {
    this._key = `oneturn.inputs.${info.name}`;
    this._isJson = false;
    this._fields = new Map();
    this._attachments = [];
    const { question, history, images, files } = info.message ?? {};
    const schema = info.inputs ?? {};
    for (const [name, property] of Object.entries(schema.properties ?? {})) {
      if (name === question || name === history) continue;
      const attachment = name === images ? "image" : name === files ? "file" : null;
      const required = (schema.required ?? []).includes(name);
      const field = createField(name, property, { definitions: schema.$defs ?? {}, required, attachment });
      if (attachment) this._attachments.push([attachment, field]);
      else this._fields.set(name, field);
    }
    this._knowsInputs = info.inputs !== undefined;
    this._show(place);
    this._restore();
  }

  /** Whether there is anything to fill in. */
  get isEmpty() {
    return this._knowsInputs && !this._fields.size && !this._attachments.length;
  }

  /**
   * Return the values as `custom_inputs`, and remember them.
   *
   * @throws {FieldError} a field isn't filled in correctly.
   */
  read() {
    for (const [, field] of this._attachments) checkControls(field.element);
    const values = this._isJson ? this._readJson() : this._readFields();
    keep("localStorage", this._key, JSON.stringify({ values, json: this._isJson }));
    return values;
  }

  /** Return the attached images and files as parts of a message. */
  async parts() {
    const parts = [];
    for (const [kind, field] of this._attachments) {
      for (const file of field.files()) {
        const data = await dataUri(file);
        if (kind === "image") parts.push({ type: "input_image", image_url: data });
        else parts.push({ type: "input_file", filename: file.name, file_data: data });
      }
    }
    return parts;
  }

  /** Show the inputs, or fold them away so that the answer is in sight. */
  show(isOpen) {
    this._panel.open = isOpen;
  }

  _readFields() {
    checkControls(this._group);
    const values = [...this._fields].map(([name, field]) => [name, field.read()]);
    return Object.fromEntries(values.filter(([, value]) => value !== undefined));
  }

  _readJson() {
    const text = this._json.value.trim();
    let values;
    try {
      values = text ? JSON.parse(text) : {};
    } catch (error) {
      throw new FieldError(`custom_inputs isn't JSON: ${error.message}`, this._json);
    }
    if (values === null || typeof values !== "object" || Array.isArray(values)) {
      throw new FieldError("custom_inputs must be a JSON object.", this._json);
    }
    return values;
  }

  _show(place) {
    this._group = element("div.fields", {}, ...[...this._fields.values()].map((field) => field.element));
    this._json = element("textarea.code", { id: "custom-inputs", rows: 6, spellcheck: "false", placeholder: "{}" });
    this._jsonGroup = element("div.field", { hidden: true }, element("label", { for: "custom-inputs" }, "custom_inputs as JSON"), this._json);
    this._toggle = element("button.quiet", { type: "button", click: () => this._switch(), "aria-pressed": "false" }, "Edit as JSON");
    const files = this._attachments.map(([, field]) => field.element);
    this._panel = element(
      "details.inputs",
      {},
      element("summary", {}, "Inputs"),
      ...files,
      this._group,
      this._jsonGroup,
      this._toggle,
    );
    if (this.isEmpty) return;
    if (!this._knowsInputs) this._switch(true);
    this._toggle.hidden = !this._fields.size;
    place.append(this._panel);
    this._panel.open = [...this._group.querySelectorAll(":required")].length > 0 || files.length > 0;
  }

  _switch(toJson = !this._isJson) {
    if (toJson) {
      let values = {};
      try {
        values = this._readFields();
      } catch {
        // what isn't filled in yet
        values = Object.fromEntries([...this._fields].map(([name, field]) => [name, tryRead(field)]));
      }
      this._json.value = Object.keys(values).length ? JSON.stringify(values, null, 2) : "";
    } else {
      let values;
      try {
        values = this._readJson();
      } catch {
        this._json.focus();
        return;
      }
      for (const [name, field] of this._fields) field.write(values[name]);
    }
    this._isJson = toJson;
    this._group.hidden = toJson;
    this._jsonGroup.hidden = !toJson;
    this._toggle.textContent = toJson ? "Edit as a form" : "Edit as JSON";
    this._toggle.setAttribute("aria-pressed", String(toJson));
  }

  _restore() {
    let saved;
    try {
      saved = JSON.parse(recall("localStorage", this._key));
    } catch {
      return;
    }
    if (!saved?.values) return;
    for (const [name, field] of this._fields) if (name in saved.values) field.write(saved.values[name]);
    if (saved.json) {
      if (!this._isJson) this._switch(true);
      this._json.value = JSON.stringify(saved.values, null, 2);
    }
  }
}

/** Throw a FieldError for the first control of an element that isn't filled in correctly. */
function checkControls(place) {
  const invalid = place.querySelector(":invalid:not(fieldset)");
  if (!invalid) return;
  const label = place.querySelector(`label[for="${invalid.id}"]`);
  throw new FieldError(`${label?.firstChild?.textContent ?? "A field"}: ${invalid.validationMessage}`, invalid);
}

function tryRead(field) {
  try {
    return field.read();
  } catch {
    return undefined;
  }
}

function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new FieldError(`${file.name} can't be read.`, null));
    reader.readAsDataURL(file);
  });
}
