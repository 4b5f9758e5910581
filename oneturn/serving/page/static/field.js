/** Form fields made from JSON schemas. Each has `element`, `read()` and `write(value)`. */

import { element, newId } from "./dom.js";

const DEEPEST = 4;
const FORMATS = { date: "date", email: "email", uri: "url" };
const EXAMPLES = { time: "10:15:00", "date-time": "2026-02-03T10:15:00Z" }; // the browser's own fields take no time zone

/** A value that a field can't be read from; `element` is the field's control. */
export class FieldError extends Error {
  constructor(message, control) {
    super(message);
    this.control = control;
  }
}

/**
 * Return the field of a schema.
 *
 * @param {string} name its label.
 * @param {Object} schema its JSON schema.
 * @param {Object} context {definitions, required, attachment}: the schema's `$defs`, whether a value is required, and
 *   whether the field holds an "image" or a "file". An empty field that may be null, and can't be left out, is null.
 */
export function createField(name, schema, context, depth = 0) {
  const [resolved, nullable] = resolve(schema, context.definitions);
  const field = fieldOf(name, schema, resolved, nullable, context, depth);
  if (!nullable || !context.required) return field;
  return { ...field, read: () => field.read() ?? null };
}

function fieldOf(name, schema, resolved, nullable, context, depth) {
  const required = context.required && !nullable;
  const inner = { ...context, required };
  const description = schema.description ?? (depth ? resolved.description : undefined);
  const field = { name, schema: resolved, description, required };
  if (context.attachment) return attachmentField(field, context.attachment);
  const options = resolved.enum ?? ("const" in resolved ? [resolved.const] : null);
  if (options) return choiceField(field, options.map((option) => [String(option), option]));
  if (resolved.type === "boolean") {
    return required ? checkField(field) : choiceField(field, [["yes", true], ["no", false]]);
  }
  if (resolved.type === "integer" || resolved.type === "number") return numberField(field);
  if (resolved.type === "string") return textField(field);
  if (resolved.type === "array" && resolved.items && depth < DEEPEST) return listField(field, inner, depth);
  if (resolved.type === "object" && resolved.properties && depth < DEEPEST) return objectField(field, inner, depth);
  return jsonField(field);
}

/** Return a schema without `$ref` and without the option null, and whether null is allowed. */
function resolve(schema, definitions) {
  let current = schema;
  let nullable = false;
  for (let steps = 0; steps < 20; steps += 1) {
    const options = current.anyOf ?? current.oneOf;
    if (current.$ref) {
      current = definitions[current.$ref.split("/").pop()] ?? {};
    } else if (options) {
      const others = options.filter((option) => option.type !== "null");
      nullable ||= others.length < options.length;
      if (others.length !== 1) return [{ anyOf: others }, nullable];
      current = others[0];
    } else if (current.allOf?.length === 1) {
      const { allOf, ...rest } = current;
      current = { ...allOf[0], ...rest };
    } else if (Array.isArray(current.type)) {
      const types = current.type.filter((type) => type !== "null");
      nullable ||= types.length < current.type.length;
      if (types.length !== 1) return [{ anyOf: types.map((type) => ({ ...current, type })) }, nullable];
      current = { ...current, type: types[0] };
    } else break;
  }
  return [current, nullable];
}

function labelled(field, control, ...more) {
  control.id = newId("field");
  const hint = description(field);
  if (hint) control.setAttribute("aria-describedby", hint.id);
  if (field.required) control.required = true;
  return element("div.field", {}, label(field, control.id), control, ...more, hint);
}

function label(field, id) {
  return element("label", { for: id }, field.name, field.required ? null : element("span.optional", {}, " optional"));
}

function description(field) {
  return field.description ? element("p.description", { id: newId("hint") }, field.description) : null;
}

function choiceField(field, options) {
  const control = element("select", {}, element("option", { value: "" }, field.required ? "Choose…" : "–"));
  options.forEach(([text], index) => control.append(element("option", { value: index }, text)));
  return {
    element: labelled(field, control),
    read: () => (control.value === "" ? undefined : options[Number(control.value)][1]),
    write: (value) => {
      const index = options.findIndex(([, option]) => option === value);
      control.value = index < 0 ? "" : String(index);
    },
  };
}

function checkField(field) {
  const control = element("input", { type: "checkbox", id: newId("field") });
  const hint = description(field);
  if (hint) control.setAttribute("aria-describedby", hint.id);
  return {
    element: element("div.field.check", {}, control, element("label", { for: control.id }, field.name), hint),
    read: () => control.checked,
    write: (value) => (control.checked = value === true),
  };
}

function numberField(field) {
  const { schema } = field;
  const control = element("input", {
    type: "number",
    step: schema.type === "integer" ? 1 : "any",
    min: schema.minimum ?? schema.exclusiveMinimum,
    max: schema.maximum ?? schema.exclusiveMaximum,
  });
  return {
    element: labelled(field, control),
    read: () => {
      if (control.validity.badInput) throw new FieldError(`${field.name} isn't a number.`, control);
      return control.value === "" ? undefined : Number(control.value);
    },
    write: (value) => (control.value = value ?? ""),
  };
}

function textField(field) {
  const { schema } = field;
  const type = FORMATS[schema.format];
  const limits = { minlength: schema.minLength, maxlength: schema.maxLength, placeholder: EXAMPLES[schema.format] };
  const control = type
    ? element("input", { type })
    : schema.pattern
      ? element("input", { type: "text", pattern: `[\\s\\S]*(?:${schema.pattern})[\\s\\S]*`, ...limits }) // found anywhere
      : element("textarea", { rows: 1, ...limits });
  return {
    element: labelled(field, control),
    read: () => (control.value === "" && !field.required ? undefined : control.value),
    write: (value) => (control.value = value !== null && typeof value === "object" ? JSON.stringify(value) : (value ?? "")),
  };
}

function jsonField(field) {
  const takesText = field.schema.anyOf?.some((option) => option.type === "string"); // as it is, unless it is JSON
  const control = element("textarea.code", { rows: 3, spellcheck: "false", placeholder: takesText ? "Text or JSON" : "JSON" });
  return {
    element: labelled(field, control),
    read: () => {
      if (!control.value.trim()) return undefined;
      try {
        return JSON.parse(control.value);
      } catch (error) {
        if (takesText) return control.value;
        throw new FieldError(`${field.name} isn't JSON: ${error.message}`, control);
      }
    },
    write: (value) => {
      if (value === undefined) control.value = "";
      else control.value = takesText && isPlain(value) ? value : JSON.stringify(value, null, 2);
    },
  };
}

/** Whether a value is a text that reads as itself. */
function isPlain(value) {
  if (typeof value !== "string" || !value.trim()) return false;
  try {
    JSON.parse(value);
    return false;
  } catch {
    return true;
  }
}

function attachmentField(field, kind) {
  const many = field.schema.type === "array";
  const control = element("input", { type: "file", accept: kind === "image" ? "image/*" : null, multiple: many });
  const preview = element("div.preview");
  control.addEventListener("change", () => {
    const images = [...control.files].filter((file) => file.type.startsWith("image/"));
    preview.replaceChildren(...images.map((file) => element("img", { src: URL.createObjectURL(file), alt: file.name })));
  });
  return {
    element: labelled(field, control, preview),
    read: () => undefined, // part of the message, not of custom_inputs
    write: () => {},
    files: () => [...control.files],
  };
}

function listField(field, context, depth) {
  const list = element("div.entries");
  const entries = [];
  const add = (value) => {
    const number = entries.length + 1;
    const inner = createField(`${field.name} ${number}`, field.schema.items, { ...context, required: true }, depth + 1);
    const entry = { field: inner };
    const remove = () => {
      entries.splice(entries.indexOf(entry), 1);
      entry.element.remove();
      adder.focus();
    };
    const button = element("button.quiet", { type: "button", click: remove, "aria-label": `Remove ${field.name} ${number}` }, "Remove");
    entry.element = element("div.entry", {}, inner.element, button);
    entries.push(entry);
    list.append(entry.element);
    if (value !== undefined) inner.write(value);
    return inner;
  };
  const onAdd = () => add().element.querySelector("input, select, textarea")?.focus();
  const adder = element("button.quiet", { type: "button", click: onAdd }, `Add ${field.name}`);
  const legend = element("legend", {}, field.name, field.required ? null : element("span.optional", {}, " optional"));
  return {
    element: element("fieldset.field", {}, legend, description(field), list, adder),
    read: () => {
      const values = entries.map((entry) => entry.field.read()).filter((value) => value !== undefined);
      return values.length || field.required ? values : undefined;
    },
    write: (values) => {
      entries.length = 0;
      list.replaceChildren();
      if (Array.isArray(values)) values.forEach(add);
    },
  };
}

function objectField(field, context, depth) {
  const { properties, required = [] } = field.schema;
  const inner = Object.entries(properties).map(([name, schema]) => [
    name,
    createField(name, schema, { ...context, required: field.required && required.includes(name) }, depth + 1),
  ]);
  const legend = element("legend", {}, field.name, field.required ? null : element("span.optional", {}, " optional"));
  return {
    element: element("fieldset.field", {}, legend, description(field), ...inner.map(([, each]) => each.element)),
    read: () => {
      const values = inner.map(([name, each]) => [name, each.read()]).filter(([, value]) => value !== undefined);
      return values.length || field.required ? Object.fromEntries(values) : undefined;
    },
    write: (value) => inner.forEach(([name, each]) => each.write(value?.[name])),
  };
}
