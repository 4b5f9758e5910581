/** A request as code to copy: curl, Python and JavaScript. */

import { copy, element } from "./dom.js";

const KEY_VARIABLE = "AGENT_API_KEY";
const LONGEST = 100_000; // Linux allows 131,072 bytes in an argument

/**
 * Return the buttons that copy a request as code.
 *
 * @param {Object} body the request's body.
 * @param {boolean} needsKey whether the server requires an API key.
 */
export function snippetButtons(body, needsKey) {
  const url = new URL("v1/responses", document.baseURI).href;
  const languages = { curl: asCurl, Python: asPython, JavaScript: asJavaScript };
  const buttons = Object.entries(languages).map(([name, write]) => {
    const button = element("button.quiet", { type: "button", "aria-label": `Copy as ${name}` }, name);
    button.addEventListener("click", () => copy(write(url, body, needsKey), button));
    return button;
  });
  return element("div.snippets", {}, element("span.muted", {}, "Copy as"), ...buttons);
}

/** Return a request as a curl command. */
export function asCurl(url, body, needsKey) {
  const lines = [`curl -N ${quote(url)}`, `-H 'Content-Type: application/json'`];
  if (needsKey) lines.push(`-H "Authorization: Bearer $${KEY_VARIABLE}"`);
  const json = JSON.stringify(body);
  const isLong = new TextEncoder().encode(json).length > LONGEST;
  lines.push(isLong ? `--data-binary @- <<'END'\n${json}\nEND\n` : `-d ${quote(json)}`);
  return lines.join(" \\\n  ");
}

/** Return a request as Python with OpenAI's SDK. */
export function asPython(url, body, needsKey) {
  const { custom_inputs: inputs, stream, ...fields } = body;
  const key = needsKey ? `os.environ["${KEY_VARIABLE}"]` : `"none"`;
  const args = Object.entries(fields).map(([name, value]) => `    ${name}=${pythonLiteral(value)},`);
  if (inputs) args.push(`    extra_body=${pythonLiteral({ custom_inputs: inputs })},`);
  return [
    ...(needsKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(url.replace(/\/responses$/, ""))}, api_key=${key})`,
    "response = client.responses.create(",
    ...args,
    ")",
    "print(response.output_text)",
    "",
  ].join("\n");
}

/** Return a request as JavaScript with fetch. */
export function asJavaScript(url, body, needsKey) {
  const { stream, ...fields } = body;
  const key = needsKey ? `\n    Authorization: \`Bearer \${process.env.${KEY_VARIABLE}}\`,` : "";
  return `const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${key}
  },
  body: JSON.stringify(${JSON.stringify(fields, null, 2).replaceAll("\n", "\n  ")}),
});
console.log(JSON.stringify(await response.json(), null, 2));
`;
}

function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function pythonLiteral(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)}: ${pythonLiteral(inner)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
