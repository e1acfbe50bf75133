// The client with real gateways, as users run them.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { Client, Subscription, ZoneEntry } from 'zonewire';
import { fastClock, follow, Gateway, noGateway, noRedis, Proxy, Redis, until } from './support/real.js';

type Numbered = ZoneEntry<{ n: number }>;

/** Everything that a subscription reported: the numbers of prices, and gaps. */
const record = (sub: Subscription<Numbered>) => {
  const had: number[] = [];
  const gaps: (number | undefined)[] = [];
  sub.on('entry', (entry) => entry.type === 'price_update' && !entry.snapshot && had.push(entry.n));
  sub.on('gap', ({ missed }) => gaps.push(missed));
  return { had, gaps };
};
const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);
const price = (n: number) => ({ key: `k${n % 7}`, price: n, n });
const isOpen = (client: Client) => until(() => client.status.state === 'open', () => JSON.stringify(client.status));
const isLive = (sub: Subscription<Numbered>) => until(() => sub.status === 'live', 'live');
const table = (sub: Subscription<Numbered>) => Object.fromEntries([...sub.latest()].map(([key, entry]) => [key, entry.price]));

const every = ['--set', 'channels.default_lane=every'];

describe('a gateway in memory', { skip: noGateway }, () => {
  test('greets, sends a snapshot and what follows, and answers for what is wrong', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory');
    for (const n of numbers(1, 20)) await gateway.publish('pjm', price(n));
    const client = follow(gateway.url);
    const sub = client.zone<{ n: number }>('pjm');
    const { had } = record(sub);
    await isLive(sub);
    assert.deepEqual(table(sub), { k0: 14, k1: 15, k2: 16, k3: 17, k4: 18, k5: 19, k6: 20 });
    await gateway.publish('pjm', price(21));
    await fetch(`${gateway.url}/api/zones/pjm/keys/k1`, { method: 'DELETE' });
    await until(() => had.length && !sub.latest().has('k1'), 'a price and a removal');
    assert.deepEqual(table(sub), { k0: 21, k2: 16, k3: 17, k4: 18, k5: 19, k6: 20 });
    assert.equal(client.backend?.storage_backend, 'in-memory');
    assert.ok(client.ageMs(sub.latest().get('k0')!) < 20_000);

    const wrong = client.zone('no such zone');
    await assert.rejects(async () => {
      for await (const _ of wrong);
    }, { code: 'invalid_channel' });
    assert.equal(client.status.state, 'open');
    client.close();
  });

  test('is killed and started again: what is gone with it is told, and the table is as it is now', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', ...every);
    const client = follow(gateway.url, { clock: fastClock(20) });
    const [all, shown] = [client.zone<{ n: number }>('all', { snapshot: false }), client.zone<{ n: number }>('shown')];
    const { had, gaps } = record(all);
    await isLive(all);
    await isLive(shown);
    for (const n of numbers(1, 10)) for (const zone of ['all', 'shown']) await gateway.publish(zone, price(n));
    await until(() => had.length === 10 && shown.latest().get('k3')?.n === 10, 'ten prices');
    await gateway.kill();
    await until(() => client.status.state !== 'open', 'noticed');
    assert.equal(client.status.code, 1006);
    await gateway.start();
    for (const zone of ['all', 'shown']) await gateway.publish(zone, price(11));
    client.reconnect();
    await until(() => had.length === 11, () => `the eleventh: ${had}`);
    await isLive(shown);
    assert.deepEqual(had, numbers(1, 11));
    assert.deepEqual(gaps, [undefined]);
    await until(() => shown.latest().size === 1, () => JSON.stringify(table(shown)));
    assert.deepEqual(table(shown), { k4: 11 });
    client.close();
  });

  test('that stands still is left, and nothing is lost', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', ...every);
    const client = follow(gateway.url, { clock: fastClock(100) });
    const sub = client.zone<{ n: number }>('pjm', { snapshot: false });
    const { had, gaps } = record(sub);
    await isLive(sub);
    for (const n of numbers(1, 5)) await gateway.publish('pjm', price(n));
    await until(() => had.length === 5, 'five');
    gateway.signal('SIGSTOP');
    await until(() => client.status.reason === 'silence', () => JSON.stringify(client.status));
    gateway.signal('SIGCONT');
    for (const n of numbers(6, 9)) await gateway.publish('pjm', price(n));
    client.reconnect();
    await until(() => had.length === 9, () => `${had}`);
    assert.deepEqual(had, numbers(1, 9));
    assert.deepEqual(gaps, []);
    client.close();
  });

  test('that stops says when to come back, which is kept', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', '--set', 'http.drain_s=1');
    const client = follow(gateway.url);
    await isOpen(client);
    let told: number | undefined;
    client.on('message', (message) => message.type === 'closing' && (told = message.retry_after_ms));
    const code = gateway.kill('SIGTERM');
    await until(() => client.status.state === 'waiting', () => JSON.stringify(client.status));
    assert.deepEqual([client.status.code, client.status.reason, client.status.retryInMs], [4000, 'shutting_down', told]);
    assert.ok(told! > 0);
    assert.equal(await code, 0);
    client.close();
  });

  test('sends an order from its first update on, and ends the subscription after its last', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', '--set', 'orders.paper.failure_rate=0', '--set', 'connections.order_linger_ms=50');
    const client = follow(gateway.url);
    const answer = await fetch(`${gateway.url}/api/orders/execute`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5}',
    });
    const { orderId } = (await answer.json()) as { orderId: string };
    const stages: string[] = [];
    for await (const update of client.order(orderId.toUpperCase())) if (stages.at(-1) !== update.type) stages.push(update.type);
    assert.deepEqual(stages, ['routing', 'building', 'submitted', 'confirmed']);
    client.close();
  });
});

describe('two gateways with one Redis', { skip: noRedis }, () => {
  const two = async () => {
    const redis = await Redis.start();
    const args = ['serve', '--storage', 'redis', '--redis-url', redis.url, ...every];
    return { redis, a: await Gateway.start(...args), b: await Gateway.start(...args) };
  };

  test('a client goes from one to the other, also where that one is killed, and loses nothing', async () => {
    const { a, b } = await two();
    let at = a;
    const client = follow(() => at.url, { clock: fastClock(20) });
    const sub = client.zone<{ n: number }>('pjm', { snapshot: false });
    const { had, gaps } = record(sub);
    await isLive(sub);
    at = b; // before any entry arrived
    client.reconnect();
    for (const n of numbers(1, 10)) await a.publish('pjm', price(n));
    await until(() => had.length === 10, () => `${had}`);
    at = a;
    client.reconnect();
    for (const n of numbers(11, 20)) await b.publish('pjm', price(n));
    await until(() => had.length === 20, () => `${had}`);
    await a.kill();
    at = b;
    for (const n of numbers(21, 30)) await b.publish('pjm', price(n));
    await until(() => had.length === 30, () => `${had}`);
    await a.start();
    at = a;
    client.reconnect();
    await a.publish('pjm', price(31));
    await until(() => had.length === 31, () => `${had}`);
    assert.deepEqual(had, numbers(1, 31));
    assert.deepEqual(gaps, []);
    client.close();
    await a.kill();
    await b.kill();
  });

  test('Redis is pulled and comes back: it is said, and nothing is lost or doubled', async () => {
    const { redis, a, b } = await two();
    let at = a;
    const client = follow(() => at.url, { clock: fastClock(20) });
    const [sub, shown] = [client.zone<{ n: number }>('pjm', { snapshot: false }), client.zone<{ n: number }>('shown')];
    const states: string[] = [];
    client.on('backend', ({ state }) => states.at(-1) !== state && states.push(state));
    const { had, gaps } = record(sub);
    const late: number[] = [];
    sub.on('entry', (entry) => entry.late && entry.type === 'price_update' && late.push(entry.n));
    await isLive(sub);
    await isLive(shown);
    const say = async (gateway: Gateway, from: number, to: number) => {
      for (const n of numbers(from, to)) for (const zone of ['pjm', 'shown']) await gateway.publish(zone, price(n));
    };
    await say(a, 1, 10);
    await redis.kill();
    await until(() => sub.degraded, 'degraded');
    await say(a, 11, 20);
    await say(b, 21, 25); // unreachable for this client until Redis is back
    await until(() => had.length === 20, () => `${had}`);
    client.reconnect();
    await say(a, 26, 28);
    await until(() => had.length === 23, () => `${had}`);
    await redis.start();
    await until(() => client.backend?.state === 'healthy', () => JSON.stringify(client.backend));
    await say(b, 29, 30);
    await until(() => had.length === 30, () => `${had}`);
    assert.deepEqual([...had].sort((x, y) => x - y), numbers(1, 30));
    assert.deepEqual(gaps, []);
    for (const n of numbers(21, 25)) assert.ok(late.includes(n), `${n} is late: ${late}`);
    assert.deepEqual(new Set(states), new Set(['healthy', 'degraded', 'recovering']));
    at = b;
    client.reconnect();
    await say(a, 31, 31);
    await until(() => had.length === 31 && shown.latest().get('k3')?.n === 31, () => `${had}`);
    const latest = await b.get('/api/zones/shown/latest');
    assert.deepEqual(table(shown), Object.fromEntries(latest.entries.map((entry: { key: string; price: number }) => [entry.key, entry.price])));
    client.close();
    await a.kill();
    await b.kill();
  });

  test('a half-open connection is left for the other gateway', async () => {
    const { a, b } = await two();
    const [toA, toB] = [await new Proxy(() => a.port).listen(), await new Proxy(() => b.port).listen()];
    let at = toA;
    const client = follow(() => at.url, { clock: fastClock(100) });
    const sub = client.zone<{ n: number }>('pjm', { snapshot: false });
    const { had, gaps } = record(sub);
    await isLive(sub);
    await a.publish('pjm', price(1));
    await until(() => had.length === 1, 'one');
    toA.stall();
    at = toB;
    for (const n of numbers(2, 5)) await a.publish('pjm', price(n));
    await until(() => had.length === 5, () => `${had} ${JSON.stringify(client.status)}`);
    assert.deepEqual([had, gaps], [numbers(1, 5), []]);
    client.close();
    await a.kill();
    await b.kill();
  });
});
