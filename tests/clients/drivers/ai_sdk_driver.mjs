// The Vercel AI SDK with the provider that the argument names.
import { generateText, Output, streamText } from 'ai';
import { z } from 'zod';
import { Left, runCells, turn } from './cells.mjs';

const provider = process.argv[2];
const ANSWER = z.object({ answer: z.string(), sure: z.boolean() });

async function createModel(cell) {
  // No provider has an option for custom inputs: a fetch adds them to the body.
  const fetchWithInputs = (url, init) =>
    fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), custom_inputs: cell.custom_inputs }) });
  const options = cell.custom_inputs ? { fetch: fetchWithInputs } : {};
  if (provider === 'openai') {
    const { createOpenAI } = await import('@ai-sdk/openai');
    return createOpenAI({ baseURL: cell.url, apiKey: 'none', ...options }).responses('agent');
  }
  if (provider === 'open-responses') {
    const { createOpenResponses } = await import('@ai-sdk/open-responses');
    return createOpenResponses({ name: 'desk', url: `${cell.url}/responses`, apiKey: 'none', ...options })('agent');
  }
  const { createDatabricksProvider } = await import('@databricks/ai-sdk-provider');
  const databricks = createDatabricksProvider({
    baseURL: `${cell.url}/serving-endpoints`,
    headers: { Authorization: 'Bearer none' },
    useRemoteToolCalling: true,
    ...options,
  });
  return databricks.responses('desk');
}

class Conversation {
  constructor(cell) {
    this.cell = cell;
    this.messages = [];
  }

  ask(question) {
    this.messages.push({ role: 'user', content: question });
    return this.respond();
  }

  decide(approved) {
    const parts = this.messages.flatMap((message) => (Array.isArray(message.content) ? message.content : []));
    const { approvalId } = parts.find((part) => part.type === 'tool-approval-request') ?? {};
    const content = [{ type: 'tool-approval-response', approvalId, approved, providerExecuted: true }];
    this.messages.push({ role: 'tool', content });
    return this.respond();
  }

  async respond() {
    const { cell } = this;
    const left = new AbortController();
    const timeout = AbortSignal.timeout(cell.timeout * 1000);
    const errors = [];
    const options = {
      model: await createModel(cell),
      messages: this.messages,
      maxRetries: 0,
      abortSignal: AbortSignal.any([left.signal, timeout]),
      providerOptions: provider === 'openai' ? { openai: { store: false } } : {},
      ...(cell.structured ? { output: Output.object({ schema: ANSWER }) } : {}),
    };
    if (!cell.stream) return this.read(await generateText(options), 0);
    const result = streamText({ ...options, onError: ({ error }) => errors.push(error) });
    let deltas = 0;
    for await (const part of result.fullStream) {
      if (part.type === 'error') throw part.error;
      if (part.type !== 'text-delta') continue;
      deltas += 1;
      if (cell.leave) {
        left.abort();
        throw new Left();
      }
    }
    return this.read(result, deltas);
  }

  async read(result, deltas) {
    this.messages.push(...(await result.response).messages);
    const content = await result.content;
    const of = (type) => content.filter((part) => part.type === type);
    const results = Object.fromEntries(of('tool-result').map((part) => [part.toolCallId, part.output]));
    const calls = of('tool-call');
    return turn(await result.text, {
      deltas,
      tools: calls.filter((call) => call.toolCallId in results).map((call) => shownTool(call, results)),
      to_run: calls.filter((call) => !call.providerExecuted).map((call) => call.toolName),
      citations: (provider === 'open-responses' ? of('text').flatMap(annotations) : of('source')).map(({ url }) => url),
      approvals: of('tool-approval-request').map(({ toolCall }) => [shownName(toolCall.toolName), argumentsOf(toolCall)]),
      parsed: this.cell.structured ? await result.output : null,
    });
  }
}

// @ai-sdk/open-responses gives annotations as metadata of the text, not as sources.
const annotations = (part) => Object.values(part.providerMetadata ?? {}).flatMap((metadata) => metadata.annotations ?? []);
const shownName = (name) => name.replace(/^mcp\./, '');
const argumentsOf = (call) => (typeof call.input === 'string' ? JSON.parse(call.input) : call.input);

function shownTool(call, results) {
  const output = results[call.toolCallId];
  return [shownName(call.toolName), typeof output === 'string' ? output : output?.output];
}

await runCells(Conversation);
