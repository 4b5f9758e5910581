// openai's Node SDK.
import OpenAI from 'openai';
import { CLOCK, Left, runCells, turn } from './cells.mjs';

const SCHEMA = {
  type: 'object',
  properties: { answer: { type: 'string' }, sure: { type: 'boolean' } },
  required: ['answer', 'sure'],
  additionalProperties: false,
};

class Conversation {
  constructor(cell) {
    this.cell = cell;
    this.client = new OpenAI({ baseURL: cell.url, apiKey: 'none', maxRetries: 0, timeout: cell.timeout * 1000 });
    this.input = [];
  }

  ask(question) {
    this.input = this.cell.plain ? question : [...this.input, { role: 'user', content: question }];
    return this.cell.client_tool ? this.runTool() : this.respond();
  }

  async runTool() {
    await this.respond();
    const made = this.output.filter((item) => item.type === 'function_call');
    const results = made.map(({ call_id }) => ({ type: 'function_call_output', call_id, output: 'noon' }));
    this.input = [...this.input, ...results];
    const shown = await this.respond();
    return { ...shown, ran: made.map((item) => [item.name, JSON.parse(item.arguments)]) };
  }

  decide(approve) {
    const { id } = this.output.find((item) => item.type === 'mcp_approval_request');
    this.input = [...this.input, { type: 'mcp_approval_response', approval_request_id: id, approve }];
    return this.respond();
  }

  async respond() {
    const { cell } = this;
    const body = { model: 'agent', input: this.input };
    if (cell.custom_inputs) body.custom_inputs = cell.custom_inputs;
    if (cell.structured) body.text = { format: { type: 'json_schema', name: 'answer', schema: SCHEMA, strict: true } };
    if (cell.client_tool) body.tools = [{ type: 'function', strict: true, ...CLOCK }];
    let deltas = 0;
    let response;
    if (cell.stream) {
      const stream = this.client.responses.stream(body);
      for await (const event of stream) {
        if (event.type !== 'response.output_text.delta') continue;
        deltas += 1;
        if (cell.leave) throw new Left(); // leaving the loop aborts the request
      }
      response = await stream.finalResponse();
    } else {
      response = await this.client.responses.create(body);
    }
    this.output = response.output;
    if (!cell.plain) this.input = [...this.input, ...response.output];
    return this.read(response, deltas);
  }

  read(response, deltas) {
    const { output } = response;
    const of = (type) => output.filter((item) => item.type === type);
    const notes = of('message').flatMap((item) => item.content.flatMap((part) => part.annotations ?? []));
    return turn(response.output_text, {
      deltas,
      tools: of('mcp_call').map((item) => [item.name, item.output]),
      to_run: of('function_call').map((item) => item.name),
      citations: notes.filter((note) => note.type === 'url_citation').map((note) => note.url),
      approvals: of('mcp_approval_request').map((item) => [item.name, JSON.parse(item.arguments)]),
      parsed: this.cell.structured ? JSON.parse(response.output_text) : null,
    });
  }
}

await runCells(Conversation);
