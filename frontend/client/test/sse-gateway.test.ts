// Events of gateways as users run them, read by the client, and by an EventSource as browsers have it.

import assert from 'node:assert/strict';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, test } from 'node:test';

import { EventSource } from 'eventsource';
import type { Client, ClientOptions, Subscription, ZoneEntry } from 'zonewire';
import { events, fallback } from 'zonewire/sse';
import { WebSocket } from 'ws';
import { fastClock, follow, Gateway, noGateway, noRedis, Proxy, Redis, until } from './support/real.js';

type Numbered = ZoneEntry<{ n: number }>;

const record = (sub: Subscription<Numbered>) => {
  const had: number[] = [];
  const gaps: (number | undefined)[] = [];
  sub.on('entry', (entry) => entry.type === 'price_update' && !entry.snapshot && had.push(entry.n));
  sub.on('gap', ({ missed }) => gaps.push(missed));
  return { had, gaps };
};
const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);
const price = (n: number) => ({ key: `k${n % 7}`, price: n, n });
const isLive = (sub: Subscription<Numbered>) => until(() => sub.status === 'live', () => `live: ${sub.status}`);
const table = (sub: Subscription<Numbered>) => Object.fromEntries([...sub.latest()].map(([key, entry]) => [key, entry.price]));
const streams = async (gateway: Gateway) => (await gateway.get('/ws/stats')).connections.event_streams;

const every = ['--set', 'channels.default_lane=every'];
const read = (url: Parameters<typeof follow>[0], options: ClientOptions = {}) => follow(url, { WebSocket: events(), ...options });

/** A network that lets requests through and no WebSocket: it refuses them, or swallows them. */
class Blocking {
  readonly #server: Server;
  port = 0;
  upgrades = 0;

  constructor(to: () => number, swallows: boolean) {
    this.#server = createServer((asked, answer) => {
      const { method, url, headers } = asked;
      const passed = request({ port: to(), host: '127.0.0.1', method, path: url, headers }, (got) => {
        answer.writeHead(got.statusCode!, got.headers);
        got.pipe(answer);
      });
      passed.on('error', () => answer.destroy());
      answer.on('close', () => passed.destroy());
      asked.pipe(passed);
    }).on('upgrade', (_, socket) => {
      this.upgrades++;
      if (!swallows) socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n');
    });
    after(() => this.close());
  }
  async listen() {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.port = (this.#server.address() as AddressInfo).port;
    return this;
  }
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }
  cut = () => this.#server.closeAllConnections();
  close() {
    this.#server.close();
    this.cut();
  }
}

describe('events of a gateway in memory', { skip: noGateway }, () => {
  test('have a snapshot and what follows, answers for what is wrong, and another stream for each subscription', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory');
    for (const n of numbers(1, 20)) await gateway.publish('pjm', price(n));
    const client = read(gateway.url);
    const sub = client.zone<{ n: number }>('pjm');
    const { had, gaps } = record(sub);
    await isLive(sub);
    assert.deepEqual(table(sub), { k0: 14, k1: 15, k2: 16, k3: 17, k4: 18, k5: 19, k6: 20 });
    await gateway.publish('pjm', price(21));
    await fetch(`${gateway.url}/api/zones/pjm/keys/k1`, { method: 'DELETE' });
    await until(() => had.length && !sub.latest().has('k1'), 'a price and a removal');
    for (let n = 22; n <= 40; n++) {
      const other = client.zone<{ n: number }>(`other${n % 3}`, { snapshot: false });
      await gateway.publish('pjm', price(n));
      if (n % 2) await isLive(other);
      other.close();
    }
    await until(() => had.length === 20, () => `${had}`);
    assert.deepEqual([had, gaps], [numbers(21, 40), []]);
    const wrong = client.zone('no such zone');
    await assert.rejects(async () => {
      for await (const _ of wrong);
    }, { code: 'invalid_channel' });
    assert.deepEqual([client.status.state, client.status.attempt], ['open', 0]);
    await until(async () => (await streams(gateway)) === 1, 'one stream is left');
    client.close();
    await until(async () => (await streams(gateway)) === 0, 'none is left');
  });

  test('end with an order, and the client stays', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', '--set', 'orders.paper.failure_rate=0', '--set', 'connections.order_linger_ms=50');
    const client = read(gateway.url);
    const answer = await fetch(`${gateway.url}/api/orders/execute`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5}',
    });
    const { orderId } = (await answer.json()) as { orderId: string };
    const stages: string[] = [];
    for await (const update of client.order(orderId)) if (stages.at(-1) !== update.type) stages.push(update.type);
    assert.deepEqual(stages, ['routing', 'building', 'submitted', 'confirmed']);
    const sub = client.zone<{ n: number }>('pjm', { snapshot: false });
    const { had } = record(sub);
    await isLive(sub);
    await gateway.publish('pjm', price(1));
    await until(() => had.length === 1, 'it goes on');
    assert.equal(client.status.attempt, 0);
    client.close();
  });

  test('say when a gateway stops, and are taken up where it is killed and started again', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', '--set', 'http.drain_s=1', ...every);
    const client = read(gateway.url, { clock: fastClock(20) });
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
    assert.deepEqual([had, gaps], [numbers(1, 11), [undefined]]);
    await until(() => shown.latest().size === 1, () => JSON.stringify(table(shown)));
    const stopping = gateway.kill('SIGTERM');
    await until(() => client.status.code === 4000, () => JSON.stringify(client.status));
    assert.equal(client.status.reason, 'shutting_down');
    assert.equal(await stopping, 0);
    client.close();
  });

  test('come where no WebSocket gets through, whether it is refused or swallowed', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', ...every);
    for (const swallows of [false, true]) {
      const network = await new Blocking(() => gateway.port, swallows).listen();
      const clock = fastClock(20);
      const client = follow(network.url, { WebSocket: fallback({ WebSocket: WebSocket as never, clock }), clock });
      const states: string[] = [];
      client.on('state', ({ state }) => states.push(state));
      const zone = `pjm-${swallows}`;
      const sub = client.zone<{ n: number }>(zone, { snapshot: false });
      const { had, gaps } = record(sub);
      await isLive(sub);
      assert.deepEqual([states, network.upgrades], [['open'], 1]);
      await gateway.publish(zone, price(1));
      await until(() => had.length === 1, 'one');
      network.cut();
      for (const n of numbers(2, 5)) await gateway.publish(zone, price(n));
      await until(() => had.length === 5, () => `${had}`);
      assert.deepEqual([had, gaps, network.upgrades], [numbers(1, 5), [], 1]);
      client.close();
      network.close();
    }
    // And where one gets through, it is one.
    const client = follow(gateway.url, { WebSocket: fallback({ WebSocket: WebSocket as never }) });
    await until(() => client.status.state === 'open', 'open');
    // The ones before it may still be listed.
    const { connection_list: listed } = await gateway.get('/ws/stats');
    assert.ok(listed.some(({ transport }: { transport: string }) => transport === 'websocket'), JSON.stringify(listed));
    client.close();
  });
});

describe('an EventSource', { skip: noGateway }, () => {
  /** What it got, and what it asked for. */
  const open = (url: string) => {
    const asked: (string | undefined)[] = [];
    const source = new EventSource(url, {
      fetch: (to, init) => {
        asked.push((init.headers as Record<string, string>)['Last-Event-ID']);
        return fetch(to, init);
      },
    });
    after(() => source.close());
    const said: any[] = [];
    source.onmessage = ({ data }) => said.push(JSON.parse(data));
    return { source, said, asked, prices: () => said.filter(({ type }) => type === 'price_update').map(({ n }) => n) };
  };

  test('comes back by itself with what it had of all channels, and loses and doubles nothing', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', ...every);
    const proxy = await new Proxy(() => gateway.port).listen();
    const { source, said, asked, prices } = open(`${proxy.url}/sse?channels=zone:a,zone:b`);
    await until(() => said.filter(({ type }) => type === 'subscribed').length === 2, 'subscribed');
    let last = 0;
    for (let round = 0; round < 4; round++) {
      proxy.bytesLeft = 700 + 300 * round;
      for (let n = 0; n < 10; n++) await gateway.publish(n % 3 ? 'a' : 'b', price(++last));
      await until(() => prices().length === last, () => `${prices()}`);
    }
    assert.deepEqual(prices().sort((x: number, y: number) => x - y), numbers(1, 40));
    assert.ok(asked.length >= 5, `${asked.length}`);
    assert.equal(asked[0], undefined);
    assert.ok(asked.slice(1).every((id) => /^[^,]+:\d+,[^,]+:\d+$/.test(id!)), `${asked}`);
    assert.ok(said.filter(({ type }) => type === 'subscribed').every(({ recovered }) => recovered));
    source.close();
  });

  test('gives up at an end that is final, and not at one that is not', async () => {
    const gateway = await Gateway.start(
      'serve', '--storage', 'memory', '--set', 'connections.order_linger_ms=50', '--set', 'connections.max=1', '--set', 'orders.paper.failure_rate=0',
    );
    const answer = await fetch(`${gateway.url}/api/orders/execute`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5}',
    });
    const { orderId } = (await answer.json()) as { orderId: string };
    const client: Client = follow(gateway.url);
    await until(() => client.status.state === 'open', 'the only place is taken');
    const { source, said, asked } = open(`${gateway.url}/sse?channels=order:${orderId}`);
    await until(() => said.length === 2, () => JSON.stringify(said));
    assert.deepEqual(said.map(({ type, code }) => [type, code]), [['closing', 4005], ['closing', 4005]]);
    assert.notEqual(source.readyState, EventSource.CLOSED);
    client.close();
    await until(() => said.at(-1)?.code === 1000, () => JSON.stringify(said.at(-1)));
    await until(() => source.readyState === EventSource.CLOSED, 'it has given up');
    assert.equal(asked.at(-1), 'final');
  });
});

describe('events of two gateways with one Redis', { skip: noRedis }, () => {
  const two = async () => {
    const redis = await Redis.start();
    const args = ['serve', '--storage', 'redis', '--redis-url', redis.url, ...every];
    return { redis, a: await Gateway.start(...args), b: await Gateway.start(...args) };
  };

  test('go on at the other one, also where one is killed, and lose nothing', async () => {
    const { a, b } = await two();
    let at = a;
    const client = read(() => at.url, { clock: fastClock(20) });
    const sub = client.zone<{ n: number }>('pjm', { snapshot: false });
    const { had, gaps } = record(sub);
    await isLive(sub);
    at = b; // before any entry came
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
    assert.deepEqual([had, gaps], [numbers(1, 31), []]);
    client.close();
    await a.kill();
    await b.kill();
  });

  test('say that Redis is pulled and comes back, and nothing is lost or doubled', async () => {
    const { redis, a, b } = await two();
    let at = a;
    const client = read(() => at.url, { clock: fastClock(20) });
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
    await say(b, 21, 25); // out of this client's reach until Redis is back
    await until(() => had.length === 20, () => `${had}`);
    client.reconnect();
    await say(a, 26, 28);
    await until(() => had.length === 23, () => `${had}`);
    client.zone('another'); // another stream, in the middle of it
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
});
