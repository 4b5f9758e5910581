// What the Node drivers share; see cells.py.
import { createInterface } from 'node:readline';

export const CLOCK = {
  name: 'clock',
  description: 'Tell the time in a city.',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
};

export class Left extends Error {}

export function turn(text = '', more = {}) {
  return { text, deltas: 0, tools: [], to_run: [], citations: [], approvals: [], ...more };
}

export async function runCells(Conversation) {
  for await (const line of createInterface({ input: process.stdin })) {
    const cell = JSON.parse(line);
    console.log(JSON.stringify({ cell: cell.cell, ...(await run(Conversation, cell)) }));
  }
  process.exit(0); // connections that a client keeps open don't matter
}

async function run(Conversation, cell) {
  const turns = [];
  try {
    const conversation = new Conversation(cell);
    for (const question of cell.questions) turns.push(await conversation.ask(question));
    if (cell.approve !== null) turns.push(await conversation.decide(cell.approve));
  } catch (error) {
    if (error instanceof Left) return { turns, left: true };
    const shown = { type: error?.name ?? typeof error, message: message(error), status: error?.status ?? null };
    return { turns, error: shown };
  }
  return { turns };
}

function message(error) {
  if (typeof error?.message === 'string') return error.message;
  return error instanceof Error ? String(error) : JSON.stringify(error);
}
