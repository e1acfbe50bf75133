// A consumer written as if there were no gateway: it subscribes, then reads the list, and
// prints each update of an order once, until the last one.
//
//   node consumer.mjs <redis port> <order id>

import { Redis } from 'ioredis';

const [port, orderId] = process.argv.slice(2);
const store = new Redis(Number(port), '127.0.0.1');
const subscriber = new Redis(Number(port), '127.0.0.1');
const seen = new Set();

function take(text) {
  if (seen.has(text)) {
    return;
  }
  seen.add(text);
  console.log(text);
  if (['confirmed', 'failed'].includes(JSON.parse(text).type)) {
    store.disconnect();
    subscriber.disconnect();
  }
}

const heard = [];
let listRead = false;
subscriber.on('message', (_channel, text) => (listRead ? take(text) : heard.push(text)));
await subscriber.subscribe(`order:${orderId}`);
const list = await store.lrange(`order:${orderId}:updates`, 0, -1);
listRead = true;
[...list, ...heard].forEach(take);
