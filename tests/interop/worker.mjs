// An order worker written as if there were no gateway: BullMQ hands it jobs, and it pushes each step to
// a list and publishes it with ioredis. An argument says which of the two comes first.
//
//   node worker.mjs <redis port> <queue> push-first|publish-first <orders>
//
// Ends by itself when that many orders are done.

import { Worker } from 'bullmq';
import { Redis } from 'ioredis';

const [port, queue, order, count] = process.argv.slice(2);
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
const store = new Redis(connection);
const publisher = new Redis(connection);

async function keep(orderId, text) {
  const list = `order:${orderId}:updates`;
  await store.rpush(list, text);
  await store.ltrim(list, -50, -1);
  await store.expire(list, 300);
}

async function tell(orderId, status, fields) {
  const text = JSON.stringify({ orderId, status, ...fields, timestamp: new Date().toISOString() });
  const steps = [() => keep(orderId, text), () => publisher.publish(`order:${orderId}`, text)];
  for (const step of order === 'push-first' ? steps : steps.reverse()) {
    await step();
  }
}

const worker = new Worker(
  queue,
  async (job) => {
    const { orderId } = job.data;
    await tell(orderId, 'routing', { step: 1, dexes: ['raydium', 'meteora'] });
    await tell(orderId, 'building', { step: 2 });
    await tell(orderId, 'submitted', { step: 3 });
    await tell(orderId, 'confirmed', { step: 4, txHash: 'f00d', executedPrice: 1.5 });
  },
  { connection, concurrency: 8 },
);

let done = 0;
worker.on('failed', (_job, error) => {
  console.error(error);
  process.exitCode = 1;
});
worker.on('completed', async () => {
  done += 1;
  if (done === Number(count)) {
    await worker.close();
    store.disconnect();
    publisher.disconnect();
  }
});
console.log('ready');
