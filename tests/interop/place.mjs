// Queues orders as an application does: node place.mjs <redis port> <queue> <order id>…

import { Queue } from 'bullmq';

const [port, name, ...orders] = process.argv.slice(2);
const queue = new Queue(name, { connection: { host: '127.0.0.1', port: Number(port) } });
await queue.addBulk(orders.map((orderId) => ({ name: 'execute', data: { orderId } })));
await queue.close();
