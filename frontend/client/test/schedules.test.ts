// Seeded schedules of losses: whatever is cut and whenever, nothing is lost, doubled, or said that is not so.
//
//   ZONEWIRE_CLIENT_SCHEDULES=1000  how many; default 50
//   ZONEWIRE_CLIENT_SEED=17         that one alone

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ClientOptions, Gap } from 'zonewire';
import { events } from 'zonewire/sse';
import { FakePage } from './support/fake.js';
import { fastClock, follow, Gateway, noGateway, noRedis, Proxy, Redis, seeded, until } from './support/real.js';

const schedules = Number(process.env.ZONEWIRE_CLIENT_SCHEDULES ?? 50);
const only = process.env.ZONEWIRE_CLIENT_SEED;
const AT_ONCE = 8;
const clock = fastClock(100);

type Own = { n: number; seed: number };

const schedule = async (seed: number, worker: number, gateways: Gateway[], publishers: Gateway[], options?: ClientOptions) => {
  const random = seeded(seed);
  const below = (n: number) => Math.floor(random() * n);
  const oneOf = <T>(list: T[]) => list[below(list.length)]!;

  const isEvery = below(2) === 0;
  const zone = `${isEvery ? 'every' : 'latest'}${worker}`;
  const proxies = await Promise.all(gateways.map((gateway) => new Proxy(() => gateway.port).listen()));
  const page = new FakePage();
  const client = follow(() => oneOf(proxies).url, { clock, random, page, connectTimeoutMs: 100_000, ...options });
  client.on('state', ({ state }) => state === 'failed' && client.reconnect()); // as a user would
  const trace: string[] = [];
  client.on('message', (message) => trace.push(JSON.stringify(message)));
  client.on('state', ({ state, reason }) => trace.push(`${Date.now()} ${state} ${reason}`));
  try {
    const snapshot = below(2) === 0;
    const sub = client.zone<Own>(zone, { snapshot });
    let last = 0;
    const had: number[] = [];
    const others: string[] = []; // of the schedule before, which a snapshot may be as old as
    const offsets: string[] = [];
    const gaps: Gap[] = [];
    const looped: number[] = [];
    let isLate = false;
    sub.on('gap', (gap) => gaps.push(gap));
    sub.on('entry', (entry, { epoch }) => {
      if (entry.type !== 'price_update' || entry.snapshot) return;
      if (entry.seed !== seed) return void (last && others.push(`${entry.seed}: ${entry.n}`));
      had.push(entry.n);
      offsets.push(`${epoch}:${entry.offset}`);
      isLate ||= !!entry.late;
    });
    const loop = (async () => {
      for await (const entry of sub) if (entry.type === 'price_update' && !entry.snapshot && entry.seed === seed) looped.push(entry.n);
    })();
    await until(() => sub.status === 'live', () => `${seed}: ${JSON.stringify(client.status)}`);

    const publish = async (count: number) => {
      const prices = Array.from({ length: count }, () => ({ key: `k${below(5)}`, price: ++last, n: last, seed }));
      await oneOf(publishers).publish(zone, ...prices);
    };
    const acts: [weight: number, act: () => unknown][] = [
      [12, () => publish(1 + below(20))],
      [3, () => oneOf(proxies).cut()],
      [3, () => (oneOf(proxies).bytesLeft = below(3_000))],
      [2, () => (oneOf(proxies).refuses = 1 + below(3))],
      [1, () => oneOf(proxies).stall()],
      [2, () => oneOf(proxies).heal()],
      [2, () => client.reconnect()],
      [1, () => page.fire('freeze')],
      [2, () => page.fire(oneOf(['resume', 'pageshow', 'visibilitychange']))],
      [1, () => page.goOffline()],
      [2, () => page.goOnline()],
      [5, () => new Promise((resolve) => setTimeout(resolve, below(40)))],
    ];
    const weights = acts.reduce((sum, [weight]) => sum + weight, 0);
    for (let steps = 20 + below(20); steps > 0; steps--) {
      let draw = below(weights);
      await acts.find(([weight]) => (draw -= weight) < 0)![1]();
    }
    for (const proxy of proxies) {
      proxy.heal();
      proxy.cut(); // what was stalled would stay so
    }
    page.goOnline();
    await publish(1);
    await until(() => had.includes(last) && sub.status === 'live', () => `seed ${seed}: ${last} in ${had}: ${JSON.stringify(client.status)}`);
    await until(() => had.length >= last, () => `seed ${seed}: all ${last}: ${had}`);

    const all = Array.from({ length: last }, (_, index) => index + 1);
    const what = `seed ${seed}, zone ${zone}`;
    assert.deepEqual(others, [], what);
    assert.deepEqual([...had].sort((a, b) => a - b), all, what);
    if (!isLate) assert.deepEqual(had, all, `${what}: in order`);
    assert.deepEqual(gaps, [], what);
    assert.equal(new Set(offsets).size, offsets.length, `${what}: no position twice`);
    const latest = (await gateways[0]!.get(`/api/zones/${zone}/latest`)).entries as { key: string; n: number }[];
    const keys = new Set(snapshot ? latest.map(({ key }) => key) : sub.latest().keys());
    assert.deepEqual(
      Object.fromEntries([...sub.latest()].map(([key, { n }]) => [key, n])),
      Object.fromEntries(latest.filter(({ key }) => keys.has(key)).map(({ key, n }) => [key, n])),
      what,
    );
    sub.close();
    await loop;
    assert.deepEqual(looped, had, `${what}: a loop has the same`);
  } catch (error) {
    console.error([`seed ${seed}, zone ${zone}: the last that was heard`, ...trace.slice(-100)].join('\n'));
    throw error;
  } finally {
    client.close();
    for (const proxy of proxies) proxy.close();
  }
};

/** Runs schedules, some at once, with gateways of one Redis, or one in memory. */
const run = async (
  from: number,
  to: number,
  meanwhile?: (gateways: Gateway[], isOver: () => boolean) => Promise<void>,
  options?: ClientOptions,
) => {
  const args = Array.from({ length: AT_ONCE }, (_, worker) => ['--set', `channels.lanes.every${worker}=every`]).flat();
  const gateways: Gateway[] = [];
  if (noRedis) gateways.push(await Gateway.start('serve', '--storage', 'memory', ...args));
  else {
    const redis = await Redis.start();
    args.push('--storage', 'redis', '--redis-url', redis.url);
    for (let n = 0; n < 2; n++) gateways.push(await Gateway.start('serve', ...args));
  }
  const publishers = meanwhile ? gateways.slice(0, 1) : gateways;
  let next = from;
  let over = 0;
  await Promise.all([
    meanwhile?.(gateways, () => over === AT_ONCE),
    ...Array.from({ length: AT_ONCE }, async (_, worker) => {
      try {
        while (next <= to) await schedule(next++, worker, gateways, publishers, options);
      } finally {
        over++;
        if (next <= to) next = Infinity; // the others end with the one that failed
      }
    }),
  ]);
  for (const gateway of gateways) await gateway.kill();
};

const [from, to] = only ? [Number(only), Number(only)] : [1, schedules];

test(only ? `the schedule of seed ${only}` : `${schedules} schedules of losses`, { skip: noGateway }, () => run(from, to));

test('a third of them over events', { skip: noGateway }, () => run(from, only ? to : Math.ceil(schedules / 3), undefined, { WebSocket: events() }));

// What is published at the one that is killed might have been taken or not, so that is done at the other one.
test('a third of them while a gateway is killed and started again', { skip: noRedis }, () =>
  run(from, only ? to : Math.ceil(schedules / 3), async ([, gateway], isOver) => {
    while (!isOver()) {
      await gateway!.kill();
      await gateway!.start();
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }));
