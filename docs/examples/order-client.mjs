// Places an order and follows it to its end, through lost connections.
//
//   node order-client.mjs [--url URL] TOKEN_IN TOKEN_OUT AMOUNT
//   node order-client.mjs [--url URL] ORDER_ID
//
// Prints each update as one line of JSON. Ends with 0 when the order was confirmed, else with 1.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import WebSocket from 'ws';

const PLACE_FOR_MS = 30_000; // how long an order is sent again
const ATTEMPTS_MAX = 5; // connections that fail in a row
const STABLE_MS = 5_000; // a connection that held so long was no failure
const IDS_MAX = 1_000; // ids remembered; a log keeps 50 updates, so what comes again is among the newest

/** Whether to come back after a close code; see "Close codes" in the protocol. */
const mayReconnect = (code) => ![1000, 1002, 1003, 1007, 1009].includes(code) && !(code >= 4500 && code <= 4999);

/** Sends the order until there is an answer; the key keeps it from being placed twice. */
async function place(url, order) {
  const headers = { 'content-type': 'application/json', 'idempotency-key': randomUUID() };
  const deadline = Date.now() + PLACE_FOR_MS;
  for (let wait = 250; ; wait = Math.min(2 * wait, 4_000)) {
    // A timer of our own: unlike `AbortSignal.timeout`, it keeps Node running while the answer is awaited.
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(new Error('no answer')), 10_000);
    let problem;
    try {
      const response = await fetch(`${url}/api/orders/execute`, {
        method: 'POST', headers, body: JSON.stringify(order), signal: patience.signal,
      });
      const answer = await response.json();
      if (response.ok) return answer.orderId;
      problem = `${response.status} ${answer.code}: ${answer.detail} ${JSON.stringify(answer.errors ?? [])}`;
      // Only 503 is worth another try; it says when.
      if (response.status !== 503) throw new Error(problem, { cause: 'final' });
      wait = Math.max(wait, 1_000 * (Number(response.headers.get('retry-after')) || 0));
    } catch (error) {
      if (error.cause === 'final') throw error;
      problem = error.cause?.message ?? error.message; // no answer: the order may be there or not
    } finally {
      clearTimeout(timer);
    }
    if (Date.now() + wait > deadline) throw new Error(`not placed: ${problem}`);
    console.error(`${problem}; trying again in ${wait} ms`);
    await sleep(wait);
  }
}

/** What is known of the order, over all connections. */
const state = { position: null, ids: new Set(), mayComeAgain: false, last: null, retryAfterMs: 0 };

/** Takes a message. */
function take(message) {
  switch (message.type) {
    case 'subscribed':
    case 'resync':
      state.position = { epoch: message.epoch, offset: message.offset };
      state.mayComeAgain = !message.recovered;
      if (state.mayComeAgain) console.error(`${message.gap ?? 'an unknown number of'} updates are missing here`);
      break;
    case 'error': // such as an address that is not right; what comes next is in the close code
      console.error(message.message);
      break;
    case 'closing':
      state.retryAfterMs = message.retry_after_ms ?? 0;
      break;
    case 'skipped': // only a newer gateway knows what it says; it counts all the same
      state.position.offset = message.offset;
      break;
    case 'routing':
    case 'building':
    case 'submitted':
    case 'confirmed':
    case 'failed':
      state.position.offset = message.offset;
      if (state.mayComeAgain && state.ids.has(message.id)) break;
      state.ids.add(message.id);
      if (state.ids.size > IDS_MAX) state.ids.delete(state.ids.values().next().value); // the oldest
      state.last = message;
      console.log(JSON.stringify(message));
      break;
  }
}

const isEnded = () => ['confirmed', 'failed'].includes(state.last?.type);

/** One connection, to its end; gives the close code. */
function connection(url, orderId) {
  const since = state.position ? `?since=${state.position.epoch}:${state.position.offset}` : '';
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws/orders/${orderId}${since}`, { handshakeTimeout: 10_000 });
  return new Promise((resolve) => {
    let heartbeatMs = 30_000;
    let watchdog;
    // A connection on which nothing comes for two heartbeats and a half is dead.
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => socket.terminate(), 2.5 * heartbeatMs);
    };
    socket.on('open', heard);
    socket.on('ping', heard);
    socket.on('message', (text) => {
      const message = JSON.parse(text);
      heartbeatMs = message.heartbeat_interval_ms ?? heartbeatMs;
      heard();
      take(message);
      if (isEnded()) socket.close(1000);
    });
    socket.on('unexpected-response', (request, response) => {
      console.error(`the gateway answered ${response.statusCode}`);
      request.destroy();
      // A refusal that time does not change counts as a final code.
      resolve(response.statusCode < 500 && ![408, 425, 429].includes(response.statusCode) ? 4500 : 1006);
    });
    socket.on('error', (error) => console.error(error.message));
    socket.on('close', (code) => {
      clearTimeout(watchdog);
      resolve(code);
    });
  });
}

/** Follows the order until it ends or there is no way on. */
async function follow(url, orderId) {
  for (let attempt = 1; ; attempt += 1) {
    const began = Date.now();
    const code = await connection(url, orderId);
    if (isEnded()) return state.last.type === 'confirmed';
    if (Date.now() - began >= STABLE_MS) attempt = 1;
    if (attempt > ATTEMPTS_MAX || !mayReconnect(code)) throw new Error(`closed with ${code}; giving up`);
    // 1, 2, 4, 8, 16 s plus up to 1 s, so that not all come back at once; later if the gateway asked for it.
    const wait = Math.max(1_000 * 2 ** (attempt - 1) + 1_000 * Math.random(), state.retryAfterMs);
    state.retryAfterMs = 0;
    console.error(`closed with ${code}; trying again in ${Math.round(wait)} ms`);
    await sleep(wait);
  }
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { url: { type: 'string' } } });
const url = (values.url ?? process.env.ZONEWIRE_URL ?? 'http://127.0.0.1:8080').replace(/\/+$/, '');
try {
  let [orderId] = positionals;
  if (positionals.length === 3) {
    const [tokenIn, tokenOut, amount] = positionals;
    orderId = await place(url, { tokenIn, tokenOut, amount: Number(amount), slippage: 1 });
    console.error(`order ${orderId}`);
  } else if (positionals.length !== 1) {
    throw new Error('usage: order-client.mjs [--url URL] (TOKEN_IN TOKEN_OUT AMOUNT | ORDER_ID)');
  }
  process.exitCode = (await follow(url, orderId)) ? 0 : 1;
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
