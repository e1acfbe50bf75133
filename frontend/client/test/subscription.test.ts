import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';

import type { Subscription, ZoneEntry } from 'zonewire';
import { listen, price, setUp, settle, type FakeSocket } from './support/fake.js';

const greeted = async (options?: Parameters<typeof setUp>[0]) => {
  const set = setUp(options);
  await settle();
  set.gateway.socket.greet();
  return set;
};

/** Answers the newest `subscribe`. */
const subscribed = (socket: FakeSocket, more: object = {}) => {
  const { id, channels } = socket.of('subscribe').at(-1);
  socket.say({ type: 'subscribed', id, channel: channels[0], epoch: 'e1', offset: 0, top: 0, recovered: true, gap: 0, ...more });
};

const shown = (sub: Subscription<ZoneEntry>) => Object.fromEntries([...sub.latest()].map(([key, entry]) => [key, entry.price]));

test('resumes where it was: without any entry before, after some, and twice', async () => {
  const { gateway, clock, client } = await greeted();
  const heard = listen(client.zone('pjm', { snapshot: false }));
  const since = () => gateway.socket.of('subscribe').at(-1).since;
  const again = async () => {
    gateway.socket.drop();
    await clock.advance(20_000 - 11_000);
    gateway.socket.greet();
  };
  assert.equal(since(), undefined);
  subscribed(gateway.socket, { epoch: 'u.1', offset: 0 });
  await again();
  assert.deepEqual(since(), { 'zone:pjm': { epoch: 'u.1', offset: 0 } });
  subscribed(gateway.socket, { epoch: 'e1', offset: 0, top: 2 });
  gateway.socket.say(price(1));
  gateway.socket.say(price(2));
  await again();
  assert.deepEqual(since(), { 'zone:pjm': { epoch: 'e1', offset: 2 } });
  await again(); // lost before it was answered
  assert.deepEqual(since(), { 'zone:pjm': { epoch: 'e1', offset: 2 } });
  subscribed(gateway.socket, { offset: 2, top: 3 });
  gateway.socket.say(price(3));
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e1', epoch: 'f.e1.3', offset: 0, recovered: true, gap: 0 });
  await again();
  assert.deepEqual(since(), { 'zone:pjm': { epoch: 'f.e1.3', offset: 0 } });
  assert.deepEqual(heard, [1, 2, 3]);
});

test('what is missing is told, with its number where there is one', async () => {
  const { gateway, client } = await greeted();
  const heard = listen(client.zone('pjm', { since: 'e1:3' }));
  assert.deepEqual(gateway.socket.of('subscribe')[0], {
    type: 'subscribe', id: 1, channels: ['zone:pjm'], since: { 'zone:pjm': 'e1:3' }, snapshot: false,
  });
  const gap = { type: 'gap', channel: 'zone:pjm', missed: undefined, snapshot: false, reason: 'log' };
  subscribed(gateway.socket, { offset: 10, top: 11, recovered: false, gap: 7 });
  gateway.socket.say(price(11));
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e1', epoch: 'e2', offset: 0, recovered: false });
  gateway.socket.say(price(1, { id: 'g2-1', missedBefore: true }));
  assert.deepEqual(heard, [{ ...gap, missed: 7 }, 11, gap, gap, 1]);
});

test('repeated entries are dropped from a recovered false until a recovered true, and only then', async () => {
  const { gateway, clock, client } = await greeted();
  const sub = client.zone('pjm', { snapshot: false });
  const heard = listen(sub);
  subscribed(gateway.socket);
  gateway.socket.say(price(1));
  gateway.socket.say(price(2));
  gateway.socket.say(price(3, { id: 'g1-2' })); // nothing is dropped without a warning
  gateway.socket.drop();
  await clock.advance(1_500);
  gateway.socket.greet();
  subscribed(gateway.socket, { epoch: 'e2', offset: 0, top: 4, recovered: false, gap: undefined });
  gateway.socket.say(price(1));
  gateway.socket.say(price(2));
  gateway.socket.say({ type: 'skipped', channel: 'zone:pjm', offset: 3, reason: 'unreadable' });
  gateway.socket.say(price(4));
  assert.deepEqual(heard.map((one) => one.type ?? one), [1, 2, 3, 'gap', 3, 4]);
  assert.deepEqual(sub.position, { epoch: 'e2', offset: 4 });
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e2', epoch: 'e3', offset: 0, recovered: true, gap: 0 });
  gateway.socket.say(price(1));
  assert.equal(heard.at(-1), 1);
});

test('the position moves also over what is dropped', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm', { snapshot: false });
  subscribed(gateway.socket);
  gateway.socket.say(price(1));
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e1', epoch: 'e2', offset: 6, recovered: false });
  gateway.socket.say(price(7, { id: 'g1-1' }));
  assert.deepEqual(sub.position, { epoch: 'e2', offset: 7 });
});

test('remembers as many ids as it is told to', async () => {
  const { gateway, client } = await greeted();
  const heard = listen(client.zone('pjm', { snapshot: false, idsMax: 2 }));
  subscribed(gateway.socket);
  for (const offset of [1, 2, 3]) gateway.socket.say(price(offset));
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e1', epoch: 'e2', offset: 0, recovered: false });
  for (const offset of [3, 2, 1]) gateway.socket.say(price(offset));
  assert.deepEqual(heard.map((one) => one.type ?? one), [1, 2, 3, 'gap', 1]);

  // Also after a snapshot, which starts over.
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e2', epoch: 'e3.s', offset: 0, recovered: false, snapshot: true });
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e3', offset: 0, recovered: false });
  heard.length = 0;
  for (const offset of [1, 2, 3, 3, 2, 1, 4]) gateway.socket.say(price(offset));
  assert.deepEqual(heard, [1, 2, 3, 1, 4]);
});

test('begins with a snapshot, which what follows is merged with, and shows what there was meanwhile', async () => {
  const { gateway, clock, client } = await greeted();
  const sub = client.zone('pjm');
  const ends: boolean[] = [];
  sub.on('snapshot_end', ({ recovered }) => ends.push(recovered));
  assert.equal(gateway.socket.of('subscribe')[0].snapshot, true);
  subscribed(gateway.socket, { epoch: 'e1.s', offset: 9, top: 9, snapshot: true });
  const snapshot = (offset: number, key: string, more: object = {}) =>
    gateway.socket.say(price(offset, { key, snapshot: true, ...more }));
  snapshot(3, 'A');
  snapshot(5, 'B');
  snapshot(7, 'C', { type: 'key_removed', price: undefined });
  assert.deepEqual(sub.position, { epoch: 'e1.s', offset: 9 }, 'a part of a snapshot cannot be resumed');
  assert.equal(sub.status, 'catching_up');
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e1', offset: 9, recovered: true });
  assert.equal(sub.status, 'live');
  gateway.socket.say(price(10, { key: 'A' }));
  gateway.socket.say(price(11, { key: 'C', late: true, id: 'g1-2' })); // older than its removal
  assert.deepEqual(shown(sub), { A: 10, B: 5 });

  gateway.socket.drop();
  await clock.advance(1_500);
  assert.equal(sub.status, 'waiting');
  assert.deepEqual(shown(sub), { A: 10, B: 5 });
  gateway.socket.greet();
  assert.deepEqual([gateway.socket.of('subscribe')[0].since, gateway.socket.of('subscribe')[0].snapshot], [
    { 'zone:pjm': { epoch: 'e1', offset: 11 } }, true,
  ]);

  // The position is in a log that is gone: the channel starts over, and again before the snapshot has
  // ended.
  subscribed(gateway.socket, { epoch: 'e2.s', offset: 2, top: 2, recovered: false, gap: undefined, snapshot: true });
  snapshot(1, 'A', { id: 'h-1', price: 41 });
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e2.s', epoch: 'e3.s', offset: 2, recovered: false, snapshot: true });
  snapshot(2, 'D', { id: 'h-2', price: 42 });
  assert.deepEqual(shown(sub), { A: 41, B: 5, D: 42 });
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e3', offset: 2, recovered: false });
  assert.deepEqual(shown(sub), { A: 41, B: 5, D: 42 }, 'they were not all');
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e3', epoch: 'e4.s', offset: 3, recovered: false, snapshot: true });
  snapshot(3, 'D', { id: 'h-3', price: 43 });
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e4', offset: 3, recovered: true });
  assert.deepEqual(shown(sub), { D: 43 });
  // Entries from before a snapshot do not count.
  const heard = listen(sub);
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e4', epoch: 'e5.s', offset: 3, recovered: false, snapshot: true });
  snapshot(3, 'D', { id: 'h-3', price: 43, missedBefore: true });
  assert.deepEqual(heard.map((one) => one.type ?? one), ['gap', 3], 'nor is a gap told that is long past');
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e5', offset: 3, recovered: true });
  assert.deepEqual(ends, [true, false, true, true]);
  assert.equal(sub.latest(), sub.latest(), 'the same map until something changes');
});

test('a snapshot that is cut short is followed by another one, and no gap is told for that', async () => {
  const { gateway, clock, client } = await greeted();
  const sub = client.zone('pjm');
  const heard = listen(sub);
  subscribed(gateway.socket, { epoch: 'e1.s', offset: 9, top: 9, snapshot: true });
  gateway.socket.say(price(3, { key: 'A', snapshot: true }));
  gateway.socket.drop();
  await clock.advance(1_500);
  gateway.socket.greet();
  subscribed(gateway.socket, { epoch: 'e1.s', offset: 12, top: 12, recovered: false, gap: undefined, snapshot: true });
  gateway.socket.say(price(11, { key: 'B', snapshot: true }));
  assert.deepEqual(shown(sub), { A: 3, B: 11 });
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e1', offset: 12, recovered: true });
  assert.deepEqual(shown(sub), { B: 11 });
  assert.deepEqual(heard, [3, 11]);

  // Nor does a snapshot that was cut short continue if none follows.
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e1', epoch: 'e2.s', offset: 12, recovered: false, snapshot: true });
  gateway.socket.drop();
  await clock.advance(2_500);
  gateway.socket.greet();
  subscribed(gateway.socket, { epoch: 'e1', offset: 12, top: 12 });
  assert.equal(sub.status, 'live');
});

test('a removal of all keys stands in the table by itself, also one of a snapshot', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm');
  subscribed(gateway.socket, { epoch: 'e1.s', offset: 9, top: 9, snapshot: true });
  gateway.socket.say(price(8, { type: 'zone_removed', key: undefined, price: undefined, id: 'g1-8', snapshot: true }));
  gateway.socket.say(price(9, { key: 'B', snapshot: true }));
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e1', offset: 9, recovered: true });
  gateway.socket.say(price(10, { key: 'A', id: 'g1-7', late: true }));
  assert.deepEqual(shown(sub), { B: 9 });
});

test('catches up before it is live', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm');
  const heard: string[] = [];
  sub.on('status', (status) => heard.push(status));
  subscribed(gateway.socket, { offset: 4, top: 5, snapshot: true });
  gateway.socket.say({ type: 'snapshot_end', channel: 'zone:pjm', epoch: 'e1', offset: 4, recovered: true });
  gateway.socket.say(price(5));
  assert.deepEqual(heard, ['catching_up']);
  gateway.socket.say({ type: 'caught_up', channel: 'zone:pjm' });
  gateway.socket.drop();
  assert.deepEqual(heard, ['catching_up', 'live', 'waiting']);
});

/** The rule exactly as in the protocol document. */
const reference = () => {
  const last = new Map<string, any>();
  const isNewer = (entry: any, held: any) => {
    if (!held || !entry.late) return true;
    const [[by, number], [heldBy, heldNumber]] = [entry.id.split('-'), held.id.split('-')];
    if (by === heldBy) return Number(number) >= Number(heldNumber);
    return entry.timestamp > held.timestamp || (entry.timestamp === held.timestamp && by > heldBy);
  };
  return {
    last,
    take(entry: any) {
      const key = entry.key ?? '';
      if (!entry.snapshot) {
        if (key === '') for (const [other, held] of last) if (isNewer(entry, held)) last.delete(other);
        if (!isNewer(entry, last.get(key) ?? last.get(''))) return;
      }
      last.set(key, entry);
    },
  };
};

test('the table goes by the rule of the last entry of a key, whatever comes', async () => {
  let seed = 7;
  const below = (n: number) => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm', { snapshot: false });
  subscribed(gateway.socket);
  const { last, take } = reference();
  for (let offset = 1; offset <= 5_000; offset++) {
    const type = ['price_update', 'price_update', 'price_update', 'key_removed', 'zone_removed'][below(below(8) ? 4 : 5)]!;
    const entry = price(offset, {
      type, id: `g${below(3)}-${below(200)}`, late: below(2) ? true : undefined, price: type === 'price_update' ? offset : undefined,
      key: type === 'zone_removed' ? undefined : `k${below(6)}`,
      timestamp: new Date(Date.parse('2026-11-21T03:40:00Z') + below(50)).toISOString(),
    });
    const sent = JSON.parse(JSON.stringify(entry));
    gateway.socket.say(sent);
    take(sent);
    assert.deepEqual(
      shown(sub),
      Object.fromEntries([...last].filter(([, { type }]) => type === 'price_update').map(([key, { price }]) => [key, price])),
      `after ${JSON.stringify(sent)}`,
    );
  }
});

test('a removal is forgotten after a day', async () => {
  const { gateway, clock, client } = await greeted();
  const sub = client.zone('pjm', { snapshot: false });
  subscribed(gateway.socket);
  const timestamp = new Date(clock.now()).toISOString();
  gateway.socket.say({ ...price(1, { type: 'key_removed', id: 'g1-9', timestamp }), price: undefined });
  const late = (offset: number) => gateway.socket.say(price(offset, { id: `g1-${offset}`, late: true, timestamp }));
  gateway.socket.say({ type: 'heartbeat', timestamp });
  late(2);
  assert.deepEqual(shown(sub), {});
  clock.sleep(86_400_001);
  gateway.socket.say({ type: 'heartbeat', timestamp });
  late(3);
  assert.deepEqual(shown(sub), { 'WESTERN HUB': 3 });
  clock.sleep(86_400_001);
  gateway.socket.say({ type: 'heartbeat', timestamp });
  gateway.socket.say(price(4, { key: 'other' }));
  assert.deepEqual(shown(sub), { 'WESTERN HUB': 3, other: 4 }, 'a price is not');
});

test('entries of a kind that only a newer gateway knows count', async () => {
  const { gateway, client } = await greeted();
  const sub = client.subscribe('ticker:btc');
  const heard: unknown[] = [];
  sub.on('entry', (entry) => heard.push(entry.type));
  subscribed(gateway.socket);
  gateway.socket.say({ type: 'trade', channel: 'ticker:btc', offset: 1, id: 'g1-1', timestamp: '2026-11-21T03:40:47.388Z' });
  gateway.socket.say({ type: 'greeting', channel: 'ticker:btc' });
  gateway.socket.say({ type: 'weather' });
  assert.deepEqual(heard, ['trade']);
  assert.deepEqual(sub.position, { epoch: 'e1', offset: 1 });
});

test('messages of an earlier subscription are not taken for the new one', async () => {
  const { gateway, client } = await greeted();
  const first = client.zone('pjm', { snapshot: false });
  const heardFirst = listen(first);
  subscribed(gateway.socket);
  first.close();
  const heard = listen(client.zone('pjm', { snapshot: false }));
  gateway.socket.say(price(1));
  gateway.socket.say({ type: 'unsubscribed', channel: 'zone:pjm', code: 'finished' });
  gateway.socket.say({ type: 'subscribed', id: 1, channel: 'zone:pjm', epoch: 'e0', offset: 5, top: 5, recovered: true, gap: 0 });
  gateway.socket.say({ type: 'unsubscribed', id: 2, channel: 'zone:pjm' });
  gateway.socket.say(price(6));
  assert.deepEqual(heard, []);
  subscribed(gateway.socket, { offset: 1 });
  gateway.socket.say(price(2));
  assert.deepEqual([heardFirst, heard], [[{}], [2]]);
  assert.deepEqual(gateway.socket.sent.map(({ type, id }) => [type, id]), [['subscribe', 1], ['unsubscribe', 2], ['subscribe', 3]]);
});

test('closing a subscription that has ended leaves its successor alone', async () => {
  const { gateway, client } = await greeted();
  const first = client.zone('pjm');
  subscribed(gateway.socket);
  gateway.socket.say({ type: 'unsubscribed', channel: 'zone:pjm', code: 'forbidden' });
  const second = client.zone('pjm');
  subscribed(gateway.socket);
  first.close();
  assert.equal(second.status, 'live');
  assert.deepEqual(gateway.socket.of('unsubscribe'), []);
});

test('a channel is subscribed to once at a time', async () => {
  const { client } = await greeted();
  const sub = client.zone('pjm');
  assert.throws(() => client.subscribe('zone:pjm'), /zone:pjm is subscribed to already/);
  assert.equal(client.subscriptions.get('zone:pjm'), sub);
  client.order('FE1C3314-8FC0-4C94-B141-DAD534CA416E');
  assert.ok(client.subscriptions.has('order:fe1c3314-8fc0-4c94-b141-dad534ca416e'), 'in the form in which gateways name it');
  sub.close();
  assert.equal(client.subscriptions.has('zone:pjm'), false);
});

test('ends as the gateway says, and is not subscribed to again', async () => {
  const { gateway, clock, client } = await greeted();
  const order = client.order('fe1c3314-8fc0-4c94-b141-dad534ca416e');
  const loop = (async () => {
    for await (const _ of order);
  })();
  const refused = client.zone('with space');
  const taken = client.zone('secret');
  const ends: unknown[] = [];
  for (const sub of [order, refused, taken]) sub.on('end', ({ code, message }) => ends.push([sub.channel, code, message]));
  const [one, two, three] = gateway.socket.of('subscribe');
  for (const { id, channels } of [one, three])
    gateway.socket.say({ type: 'subscribed', id, channel: channels[0], epoch: 'e', offset: 0, top: 0, recovered: true, gap: 0 });
  gateway.socket.say({ type: 'error', id: two.id, code: 'invalid_channel', temporary: false, message: 'no such', channel: 'zone:with space' });
  gateway.socket.say({ type: 'unsubscribed', channel: 'zone:secret', code: 'forbidden' });
  gateway.socket.say({ type: 'unsubscribed', channel: order.channel, code: 'finished' });
  assert.deepEqual(ends, [
    ['zone:with space', 'invalid_channel', 'no such'], ['zone:secret', 'forbidden', undefined], [order.channel, 'finished', undefined],
  ]);
  assert.deepEqual([order.status, refused.status, taken.status], ['ended', 'ended', 'ended']);
  await loop; // which is no error
  gateway.socket.drop();
  await clock.advance(1_500);
  gateway.socket.greet();
  assert.deepEqual(gateway.socket.sent, []);
});

test('an error that is temporary leaves the request as it is', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm');
  const errors: string[] = [];
  sub.on('error', ({ code }) => errors.push(code));
  gateway.socket.say({ type: 'error', id: 1, code: 'storage_unavailable', temporary: true, message: '', channel: 'zone:pjm' });
  assert.deepEqual([errors, sub.status], [['storage_unavailable'], 'waiting']);
  subscribed(gateway.socket);
  assert.equal(sub.status, 'live');
});

test('errors of no subscription are reported by the client', async () => {
  const { gateway, client } = await greeted();
  const errors: string[] = [];
  client.on('error', ({ code }) => errors.push(code));
  client.zone('pjm').close();
  gateway.socket.say({ type: 'error', code: 'unknown_type', temporary: false, message: '' });
  gateway.socket.say({ type: 'error', id: 2, code: 'not_subscribed', temporary: false, message: '' }); // of what was closed
  assert.deepEqual(errors, ['unknown_type']);
});

test('a renewal that is refused ends nothing, and is told', async () => {
  let tokens = 0;
  const { gateway, client } = setUp({ token: () => `t${++tokens}` });
  const errors: string[] = [];
  client.on('error', ({ code }) => errors.push(code));
  await settle();
  gateway.socket.greet({ subject: 'alice', authentication: 'required' });
  gateway.socket.say({ type: 'token_expiring', expires_at: '2026-11-21T03:41:47Z' });
  await settle();
  const { id, token } = gateway.socket.of('auth')[0];
  assert.equal(token, 't2');
  gateway.socket.say({ type: 'error', id, code: 'invalid_token', temporary: false, message: '' });
  assert.deepEqual([errors, client.status.state], [['invalid_token'], 'open']);
});

test('a renewal whose key the gateway does not know yet is made again, on the same connection alone', async () => {
  let tokens = 0;
  const { gateway, clock, client } = setUp({ token: () => `t${++tokens}` });
  const errors: string[] = [];
  client.on('error', ({ code }) => errors.push(code));
  await settle();
  gateway.socket.greet({ subject: 'alice', authentication: 'required' });
  gateway.socket.say({ type: 'token_expiring', expires_at: '2026-11-21T03:41:47Z' });
  await settle();
  const await_keys = () =>
    gateway.socket.say({ type: 'error', id: gateway.socket.of('auth').at(-1)!.id, code: 'keys_awaited', temporary: false, message: '', retry_after_ms: 3_000 });
  await_keys();
  await clock.advance(2_999);
  assert.equal(gateway.socket.of('auth').length, 1);
  await clock.advance(1);
  await settle();
  assert.deepEqual([gateway.socket.of('auth').map(({ token }) => token), errors, client.status.state], [['t2', 't3'], [], 'open']);
  await_keys();
  gateway.socket.drop(4006, 'token_expired');
  await clock.advance(1_500);
  gateway.socket.greet({ subject: 'alice', authentication: 'required' });
  await clock.advance(10_000);
  assert.equal(gateway.socket.of('auth').length, 0, 'the one of before is not its own');
});

test('a client without a required token stops, and subscribes to nothing', async () => {
  const { gateway, client } = setUp();
  client.zone('pjm');
  await settle();
  assert.deepEqual(gateway.socket.protocols, ['zonewire.v1']);
  gateway.socket.greet({ authentication: 'required' });
  assert.deepEqual([client.status.state, client.status.code, client.status.message], ['failed', 4501, 'Sign in again to reconnect.']);
  assert.deepEqual(gateway.socket.sent, []);

  // With a provider there may be another one soon.
  let tokens = 0;
  const other = setUp({ token: () => (++tokens > 1 ? 'good' : undefined) });
  await settle();
  other.gateway.socket.greet({ authentication: 'required' });
  assert.equal(other.client.status.state, 'waiting');
  await other.clock.advance(1_500);
  assert.deepEqual(other.gateway.socket.protocols, ['zonewire.v1', 'bearer.good']);
});

test('a token that is invalid in a header is not quoted', async () => {
  const { gateway, client } = setUp({ token: 'with space and ünlaut' });
  await settle();
  assert.equal(gateway.sockets.length, 0);
  assert.equal(client.status.reason, 'the token has characters that are invalid in a header');
});

test('knows which channels an outage is about', async () => {
  const { gateway, client } = await greeted();
  const [pjm, ercot] = [client.zone('pjm'), client.zone('ercot')];
  const degraded = () => [pjm.degraded, ercot.degraded];
  const states: string[] = [];
  client.on('backend', ({ state, scope }) => states.push(`${state} ${scope}`));
  const say = (more: object) => gateway.socket.say({ type: 'backend_state', storage_backend: 'redis', state: 'degraded', since: '', timestamp: '', ...more });
  assert.deepEqual(degraded(), [false, false]);
  say({ scope: 'all' });
  assert.deepEqual(degraded(), [true, true]);
  say({ scope: 'some', channels: ['zone:pjm'] });
  assert.deepEqual(degraded(), [true, false]);
  say({ scope: 'some', channels: ['zone:pjm'], more_channels: 3 });
  assert.deepEqual(degraded(), [true, true], 'it may be among those that found no room');
  say({ scope: 'all', state: 'healthy' });
  assert.deepEqual(degraded(), [false, false]);
  assert.deepEqual(states, ['degraded all', 'degraded some', 'degraded some', 'healthy all']);
});

test('knows how old an entry is by the clock of the gateway, and for how long nothing came', async () => {
  const { gateway, clock, client } = setUp();
  await settle();
  const ahead = (ms: number) => new Date(clock.now() + ms).toISOString();
  gateway.socket.greet({ timestamp: ahead(-3_600_000 - 250) }); // an hour behind, and 250 ms on the way
  gateway.socket.say({ type: 'heartbeat', timestamp: ahead(-3_600_000 - 20) });
  gateway.socket.say({ type: 'heartbeat', timestamp: ahead(-3_600_000 - 90) });
  assert.equal(client.ageMs({ timestamp: ahead(-3_600_000 - 2_020) }), 2_000);
  await clock.advance(700);
  assert.equal(client.silentMs(), 700);
});

test('a loop has all entries and gaps in order, from when it began, and ends with its subscription', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm', { snapshot: false });
  const heard: unknown[] = [];
  const loop = (async () => {
    for await (const entry of sub) heard.push(entry.type === 'gap' ? entry.missed : entry.offset);
  })();
  subscribed(gateway.socket);
  gateway.socket.say(price(1));
  gateway.socket.say(price(2));
  gateway.socket.say({ type: 'resync', channel: 'zone:pjm', old_epoch: 'e1', epoch: 'e1', offset: 7, recovered: false, gap: 5 });
  gateway.socket.say(price(8));
  sub.close();
  await loop;
  assert.deepEqual(heard, [1, 2, 5, 8]);
  assert.equal(gateway.socket.of('unsubscribe').length, 1);
});

test('a loop that is slow is told how much it missed', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm', { snapshot: false, queueMax: 3 });
  const entries = sub[Symbol.asyncIterator]();
  const first = entries.next();
  subscribed(gateway.socket);
  for (let offset = 1; offset <= 10; offset++) gateway.socket.say(price(offset));
  const heard: unknown[] = [(await first).value];
  for (let n = 0; n < 3; n++) heard.push((await entries.next()).value);
  assert.deepEqual(heard.map((item: any) => item.offset ?? [item.reason, item.missed]), [['reader', 7], 8, 9, 10]);
  await entries.return!();
  gateway.socket.say(price(11));
  assert.equal(sub.status, 'live', 'who leaves the loop leaves the subscription as it is');
});

test('a loop throws what the gateway refused', async () => {
  const { gateway, client } = await greeted();
  const loop = (async () => {
    for await (const _ of client.zone('with space'));
  })();
  await settle();
  gateway.socket.say({ type: 'error', id: 1, code: 'invalid_channel', temporary: false, message: 'no such' });
  await assert.rejects(loop, { code: 'invalid_channel', message: 'no such' });
});

test('a signal ends the subscription, and nothing holds on to it', async () => {
  const { gateway, client } = await greeted();
  const abort = new AbortController();
  const sub = client.zone('pjm', { signal: abort.signal });
  const loop = (async () => {
    for await (const _ of sub);
  })();
  subscribed(gateway.socket);
  abort.abort();
  await loop;
  assert.equal(sub.status, 'ended');
  assert.equal(gateway.socket.of('unsubscribe').length, 1);
  assert.throws(() => client.zone('pjm', { signal: abort.signal }), { name: 'AbortError' });
  const { signal } = new AbortController();
  const other = client.zone('pjm', { signal });
  assert.equal(getEventListeners(signal, 'abort').length, 1);
  other.close();
  assert.equal(getEventListeners(signal, 'abort').length, 0);
  assert.equal(client.subscriptions.size, 0);
});

test('closing the client ends all of its subscriptions and loops', async () => {
  const { clock, client } = await greeted();
  const sub = client.zone('pjm');
  const loop = (async () => {
    for await (const _ of sub);
  })();
  client.close();
  await loop;
  assert.equal(sub.status, 'ended');
  assert.equal(clock.pending, 0);
});

test('a handler is called no more once it was taken away', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm', { snapshot: false });
  const heard: string[] = [];
  sub.on('entry', () => {
    heard.push('a');
    offB();
  });
  const offB = sub.on('entry', () => heard.push('b'));
  subscribed(gateway.socket);
  gateway.socket.say(price(1));
  gateway.socket.say(price(2));
  assert.deepEqual(heard, ['a', 'a']);
});
