// The Vercel AI SDK with the provider that the argument names. Streams go through UI messages, as in its chat apps.
import {
  convertToModelMessages,
  generateText,
  jsonSchema,
  Output,
  readUIMessageStream,
  stepCountIs,
  streamText,
  tool,
} from 'ai';
import { z } from 'zod';
import { CLOCK, Left, runCells, turn } from './cells.mjs';

const provider = process.argv[2];
const ANSWER = z.object({ answer: z.string(), sure: z.boolean() });

async function createModel(cell) {
  // No provider has an option for custom inputs: a fetch adds them to the body.
  const fetchWithInputs = (url, init) =>
    fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), custom_inputs: cell.custom_inputs }) });
  const options = cell.custom_inputs ? { fetch: fetchWithInputs } : {};
  if (provider.startsWith('openai')) {
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
    this.chat = []; // messages as a chat app's browser and server exchange them, for streams
  }

  ask(question) {
    this.messages.push({ role: 'user', content: question });
    this.chat.push({ id: `user-${this.chat.length}`, role: 'user', parts: [{ type: 'text', text: question }] });
    return this.respond();
  }

  async decide(approved) {
    const parts = this.cell.stream ? this.chat.at(-1).parts : this.messages.flatMap(({ content }) => content);
    const asks = (part) => part.state === 'approval-requested' || part.type === 'tool-approval-request';
    const request = parts.find(asks);
    if (!request) throw new Error('there is nothing to approve');
    if (this.cell.stream) {
      request.state = 'approval-responded';
      request.approval = { ...request.approval, approved };
    } else {
      const { approvalId } = request;
      const content = [{ type: 'tool-approval-response', approvalId, approved, providerExecuted: true }];
      this.messages.push({ role: 'tool', content });
    }
    return this.respond();
  }

  tools() {
    this.ran = [];
    const execute = (input) => {
      this.ran.push(['clock', input]);
      return 'noon';
    };
    return { clock: tool({ description: CLOCK.description, inputSchema: jsonSchema(CLOCK.parameters), execute }) };
  }

  async respond() {
    const { cell } = this;
    const left = new AbortController();
    const timeout = AbortSignal.timeout(cell.timeout * 1000);
    const options = {
      model: await createModel(cell),
      maxRetries: 0,
      abortSignal: AbortSignal.any([left.signal, timeout]),
      providerOptions: provider === 'openai' ? { openai: { store: false } } : {},
      ...(cell.structured ? { output: Output.object({ schema: ANSWER }) } : {}),
      ...(cell.client_tool ? { tools: this.tools(), stopWhen: stepCountIs(3) } : {}),
    };
    if (!cell.stream) return this.read(await generateText({ ...options, messages: this.messages }), 0);
    let deltas = 0;
    const errors = [];
    const result = streamText({
      ...options,
      messages: await convertToModelMessages(this.chat),
      onError: ({ error }) => errors.push(error),
      onChunk: ({ chunk }) => {
        if (chunk.type !== 'text-delta') return;
        deltas += 1;
        if (cell.leave) left.abort();
      },
    });
    // The browser continues the assistant's message after a decision.
    const begun = this.chat.at(-1).role === 'assistant' ? this.chat.pop() : undefined;
    const stream = result.toUIMessageStream({ sendReasoning: true, sendSources: true });
    let shown;
    for await (const message of readUIMessageStream({ stream, message: begun })) shown = message;
    if (left.signal.aborted) throw new Left();
    if (errors.length) throw errors[0];
    this.chat.push(JSON.parse(JSON.stringify(shown)));
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
      ran: this.ran,
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
