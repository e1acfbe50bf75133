// Places an order and follows it to its end, through lost connections.
//
//   node order-client.mjs [--url URL] TOKEN_IN TOKEN_OUT AMOUNT
//   node order-client.mjs [--url URL] ORDER_ID
//
// Prints each update as one line of JSON. Exits with 0 if the order was confirmed, else with 1. If the gateway
// requires a token, set ZONEWIRE_TOKEN.

import { parseArgs } from 'node:util';

import { WebSocket } from 'ws';
import { connect } from 'zonewire';
import { placeOrder, watchOrder } from 'zonewire/orders';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { url: { type: 'string' } } });
const url = values.url ?? process.env.ZONEWIRE_URL ?? 'http://127.0.0.1:8080';
const client = connect(url, { WebSocket, token: process.env.ZONEWIRE_TOKEN });

const givenUp = new AbortController();
client.on('state', ({ state, code, reason, message, retryInMs }) => {
  if (state === 'waiting') console.error(`closed with ${code} ${reason}; trying again in ${retryInMs} ms`);
  if (state === 'failed') givenUp.abort(new Error(`closed with ${code} ${reason}. ${message}`));
});

const options = {
  signal: givenUp.signal,
  onPlaced: (orderId) => console.error(`order ${orderId}`),
  onProgress: (update) => console.log(JSON.stringify(update)),
  onGap: (missed) => console.error(`${missed ?? 'an unknown number of'} updates are missing here`),
};
try {
  const [first, tokenOut, amount] = positionals;
  if (positionals.length === 3) await placeOrder(client, { tokenIn: first, tokenOut, amount: Number(amount), slippage: 1 }, options);
  else if (positionals.length === 1) await watchOrder(client, first, options);
  else throw new Error('usage: order-client.mjs [--url URL] (TOKEN_IN TOKEN_OUT AMOUNT | ORDER_ID)');
} catch (error) {
  const { code, message, details } = error;
  console.error(`error: ${code ? `${code}: ` : ''}${message}`, details?.problem?.errors ?? '');
  process.exitCode = 1;
} finally {
  client.close();
}
