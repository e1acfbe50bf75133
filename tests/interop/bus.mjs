// A process that exchanges events over Redis pub/sub, written as if there were no gateway. It publishes
// each line of its input, `{"type":…,"data":…}`, and prints each event that others publish.
//
//   node bus.mjs <ioredis | node-redis> <redis port> <type>…

import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';

const [library, port, ...types] = process.argv.slice(2);
const source = `${library}-${randomUUID()}`;
const channels = types.map((type) => `ws:${type}`);

function hear(text) {
  const event = JSON.parse(text);
  if (event.source !== source) {
    console.log(JSON.stringify(event));
  }
}

async function withIoredis() {
  const { Redis } = await import('ioredis');
  const publisher = new Redis(Number(port), '127.0.0.1');
  const subscriber = new Redis(Number(port), '127.0.0.1');
  for (const connection of [publisher, subscriber]) {
    // The library reconnects by itself.
    connection.on('error', () => {});
  }
  subscriber.on('message', (_channel, text) => hear(text));
  await subscriber.subscribe(...channels);
  return publisher;
}

async function withNodeRedis() {
  const { createClient } = await import('redis');
  const publisher = createClient({ url: `redis://127.0.0.1:${port}` });
  const subscriber = publisher.duplicate();
  for (const connection of [publisher, subscriber]) {
    connection.on('error', () => {});
    await connection.connect();
  }
  await subscriber.subscribe(channels, hear);
  return publisher;
}

const publisher = await (library === 'ioredis' ? withIoredis() : withNodeRedis());
console.log('"ready"');
for await (const line of createInterface({ input: process.stdin })) {
  const { type, data, ...rest } = JSON.parse(line);
  const envelope = { type, data, timestamp: Date.now(), source, ...rest };
  publisher.publish(`ws:${type}`, JSON.stringify(envelope)).catch(() => {});
}
process.exit(0);
