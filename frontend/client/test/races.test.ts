// Twelve races of reconnecting clients, each of which occurred in the field.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { listen, price, setUp, settle } from './support/fake.js';

/** A promise that the test settles. */
const deferred = <T>() => {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
};

test('1: a token that comes after its connection is gone is not used for the next one', async () => {
  const asked: ReturnType<typeof deferred<string>>[] = [];
  const { gateway, clock, client } = setUp({
    token() {
      asked.push(deferred());
      return asked.at(-1)!.promise;
    },
  });
  await settle();
  assert.equal(asked.length, 1);
  client.reconnect();
  await settle();
  assert.equal(asked.length, 2);
  asked[0]!.resolve('old');
  await settle();
  assert.equal(gateway.sockets.length, 0);
  asked[1]!.resolve('new');
  await settle();
  assert.deepEqual(gateway.socket.protocols, ['zonewire.v1', 'bearer.new']);

  // A renewal belongs to its connection too.
  gateway.socket.greet({ subject: 'alice' });
  gateway.socket.say({ type: 'token_expiring', expires_at: '2026-11-21T03:41:47Z' });
  gateway.socket.drop();
  await clock.advance(1_500);
  asked[3]!.resolve('newer');
  await settle();
  gateway.socket.greet({ subject: 'alice' });
  asked[2]!.resolve('of the connection before');
  await settle();
  assert.deepEqual(gateway.socket.protocols, ['zonewire.v1', 'bearer.newer']);
  assert.deepEqual(gateway.socket.of('auth'), []);
});

test('2: reconnecting does not double renewals', async () => {
  let asked = 0;
  const { gateway, clock } = setUp({ token: () => `t${++asked}` });
  await settle();
  for (const waitMs of [1_500, 2_500, 4_500]) {
    gateway.socket.greet({ subject: 'alice' });
    gateway.socket.say({ type: 'token_expiring', expires_at: '2026-11-21T03:41:47Z' });
    await settle();
    assert.equal(gateway.socket.of('auth').length, 1);
    gateway.socket.drop();
    await clock.advance(waitMs);
  }
  assert.equal(asked, 3 + 4, 'one for each connection, and one for each renewal');
});

test('3: a client that was away while its token expired comes back with a new one', async () => {
  let asked = 0;
  const { gateway, clock, page } = setUp({ token: () => `t${++asked}` });
  await settle();
  gateway.socket.greet({ subject: 'alice' });
  page.fire('freeze');
  clock.sleep(3_600_000);
  page.fire('resume');
  await settle();
  assert.deepEqual(gateway.socket.protocols, ['zonewire.v1', 'bearer.t2']);
  gateway.socket.greet({ subject: 'alice' });

  // And where nothing says that it sleeps, the gateway's code does.
  gateway.socket.drop(4006, 'token_expired');
  await clock.advance(1_500);
  assert.deepEqual(gateway.socket.protocols, ['zonewire.v1', 'bearer.t3']);
});

test('4: a fixed token is presented again after the gateway let it go, unless it is invalid', async () => {
  const { gateway, clock, said } = setUp({ token: 'fixed' });
  await settle();
  gateway.socket.greet({ subject: 'alice' });
  gateway.socket.drop(4006, 'token_expired');
  await clock.advance(1_500);
  assert.equal(gateway.sockets.length, 2);
  assert.deepEqual(gateway.socket.protocols, ['zonewire.v1', 'bearer.fixed']);
  gateway.socket.greet({ subject: 'alice' });
  assert.deepEqual(said(), ['connecting', 'open', 'waiting', 'connecting', 'open']);

  // An invalid fixed token is final.
  gateway.socket.drop(4501, 'unauthorized');
  await clock.advance(120_000);
  assert.equal(said().at(-1), 'failed');
  assert.equal(gateway.sockets.length, 2);
});

test('5: a renewal that fails is not tried for ever, and what has ended asks for none', async () => {
  let asked = 0;
  const { gateway, clock, client } = setUp({
    token() {
      if (++asked > 1) throw new Error('the identity provider is away');
      return 'first';
    },
  });
  const errors: string[] = [];
  client.on('error', ({ code }) => errors.push(code));
  const expires_at = '2026-11-21T03:41:47Z'; // in a minute
  await settle();
  gateway.subscribes();
  gateway.socket.greet({ subject: 'alice' });
  gateway.socket.say({ type: 'token_expiring', expires_at });
  for (let n = 0; n < 10; n++) {
    await clock.advance(25_000);
    gateway.socket.say({ type: 'heartbeat', timestamp: new Date(clock.now()).toISOString() });
  }
  assert.equal(asked, 1 + 13, 'every 5 s until it has expired');
  assert.deepEqual(errors, Array(13).fill('token_unavailable'));
  assert.equal(client.status.state, 'open', 'a renewal that fails ends nothing');

  gateway.socket.say({ type: 'token_expiring', expires_at });
  client.close();
  await clock.advance(600_000);
  assert.equal(asked, 1 + 13 + 1);
  assert.equal(clock.pending, 0);

  // Nor does it go on with the next connection, whose token is another one.
  let isAway = false;
  const other = setUp({ token: () => (isAway ? Promise.reject(new Error('away')) : 'good') });
  await settle();
  other.gateway.socket.greet({ subject: 'alice' });
  isAway = true;
  other.gateway.socket.say({ type: 'token_expiring', expires_at });
  await settle();
  isAway = false;
  other.gateway.socket.drop();
  await other.clock.advance(1_500);
  other.gateway.socket.greet({ subject: 'alice' });
  await other.clock.advance(20_000);
  assert.deepEqual(other.gateway.socket.of('auth'), []);
});

test('6: a position moves when the handlers have had the entry, also one that throws', async (t) => {
  const reported: unknown[] = [];
  (globalThis as { reportError?: unknown }).reportError = (error: unknown) => reported.push(error);
  t.after(() => delete (globalThis as { reportError?: unknown }).reportError);

  const { gateway, clock, client } = setUp();
  gateway.subscribes();
  const sub = client.zone('pjm', { snapshot: false });
  const seen: unknown[] = [];
  sub.on('entry', (entry) => {
    seen.push([entry.offset, (sub.position as { offset: number }).offset]);
    throw new Error('of the first handler');
  });
  sub.on('entry', async (entry) => {
    seen.push(entry.offset);
    throw new Error('of a promise');
  });
  await settle();
  gateway.socket.greet();
  gateway.socket.say(price(1));
  gateway.socket.say(price(2));
  await settle();
  assert.deepEqual(seen, [[1, 0], 1, [2, 1], 2], 'the second handler had it, and the connection goes on');
  assert.deepEqual(reported.map(String).sort(), [
    'Error: of a promise', 'Error: of a promise', 'Error: of the first handler', 'Error: of the first handler',
  ]);

  gateway.socket.drop();
  await clock.advance(1_500);
  gateway.socket.greet();
  assert.deepEqual(gateway.socket.of('subscribe')[0].since, { 'zone:pjm': { epoch: 'e1', offset: 2 } });
});

test('7: an overdue timer does not end a healthy connection', async () => {
  const { gateway, clock, client } = setUp();
  await settle();
  gateway.socket.greet();

  // Asleep for an hour. The heartbeats that came meanwhile wait in the socket, behind the timers.
  clock.sleep(3_600_000);
  await clock.advance(0); // silence is noticed late, and asked about once more
  await clock.advance(1_000);
  assert.deepEqual(gateway.socket.of('heartbeat'), [{ type: 'heartbeat' }]);
  clock.sleep(3_600_000); // and asleep again, before the answer
  await clock.advance(0);
  assert.equal(client.status.state, 'open', 'the socket has its turn first');
  gateway.socket.say({ type: 'heartbeat_ack', timestamp: '2026-11-21T03:41:47Z' });
  await clock.advance(30_000);
  assert.equal(client.status.state, 'open');
  assert.equal(gateway.sockets.length, 1);
});

test('7: a dead connection is still found', async () => {
  const { gateway, clock, client, states } = setUp();
  await settle();
  gateway.socket.greet();
  await clock.advance(74_999);
  assert.equal(client.status.state, 'open');
  assert.deepEqual(gateway.socket.of('heartbeat'), [{ type: 'heartbeat' }]);
  await clock.advance(1);
  assert.equal(client.status.state, 'waiting');
  assert.deepEqual([states.at(-1)!.code, states.at(-1)!.reason], [1006, 'silence']);
  assert.equal(gateway.sockets[0]!.closedWith, 1000);

  // In a hidden page timers run once a minute, which is late each time.
  await clock.advance(1_500);
  gateway.socket.greet();
  for (let minutes = 0; minutes < 5 && client.status.state === 'open'; minutes++) {
    clock.sleep(59_999);
    await clock.advance(1);
  }
  assert.notEqual(client.status.state, 'open');
});

test('8: several events of one awakening connect once', async () => {
  const { gateway, clock, page, said } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.drop();
  assert.equal(said().at(-1), 'waiting');
  page.fire('visibilitychange');
  page.fire('resume');
  page.fire('pageshow');
  page.fire('online');
  await clock.advance(9_000);
  assert.equal(gateway.sockets.length, 2, 'the wait of before is over, and makes no socket of its own');

  // Of an open connection they only ask whether it is.
  gateway.subscribes();
  gateway.socket.greet();
  page.fire('visibilitychange');
  page.fire('resume');
  await clock.advance(60_000);
  assert.equal(gateway.sockets.length, 2);
  assert.equal(said().at(-1), 'open');
});

test('8: an awakening that no event tells of is noticed by the timer', async () => {
  const { gateway, clock, page, client } = setUp();
  await settle();
  gateway.socket.greet();
  page.fire('freeze');
  assert.equal(client.status.state, 'waiting');
  clock.sleep(3_600_000);
  await clock.advance(2_000);
  assert.equal(gateway.sockets.length, 2);
});

test('9: a page that goes into the back/forward cache leaves its socket, and opens one when it is shown again', async () => {
  const { gateway, clock, page, client, states } = setUp();
  gateway.subscribes();
  const sub = client.zone('pjm', { snapshot: false });
  await settle();
  gateway.socket.greet();
  gateway.socket.say(price(1));
  page.fire('pagehide', { persisted: false });
  assert.equal(client.status.state, 'open', 'a page that goes for good needs nothing');
  page.fire('pagehide', { persisted: true });
  assert.equal(gateway.socket.closedWith, 1000);
  assert.deepEqual([client.status.state, client.status.reason, client.status.attempt], ['waiting', 'asleep', 0]);
  clock.sleep(600_000);
  page.fire('pageshow', { persisted: true });
  await settle();
  assert.equal(gateway.sockets.length, 2);
  gateway.socket.greet();
  assert.deepEqual(gateway.socket.of('subscribe')[0].since, { 'zone:pjm': { epoch: 'e1', offset: 1 } });
  assert.equal(sub.status, 'live');
  assert.ok(states.every(({ attempt }) => attempt === 0), 'it costs no attempt');
});

test('10: an address or a token that cannot be had once does not end the attempts', async () => {
  let addresses = 0;
  let tokens = 0;
  const { gateway, clock, states } = setUp(
    {
      async token() {
        if (++tokens === 1) throw new Error('no token now');
        return 't';
      },
    },
    async () => {
      if (++addresses === 1) throw new Error('no address now');
      return 'wss://gateway.test/base/';
    },
  );
  await clock.advance(1_500 + 2_500);
  assert.deepEqual(states.map(({ state, reason }) => [state, reason]), [
    ['connecting', undefined], ['waiting', 'no address now'],
    ['connecting', undefined], ['waiting', 'no token now'], ['connecting', undefined],
  ]);
  assert.equal(gateway.sockets.length, 1);
  assert.equal(gateway.socket.url, 'wss://gateway.test/base/ws');

  // One that never answers is not waited for for ever.
  const never = setUp({ token: () => new Promise<string>(() => {}) });
  await never.clock.advance(10_000);
  assert.deepEqual([never.client.status.state, never.client.status.reason], ['waiting', 'timed out']);
});

test('11: a channel subscribed to while the token is fetched is subscribed to once', async () => {
  const token = deferred<string>();
  const { gateway, client } = setUp({ token: () => token.promise });
  gateway.subscribes();
  const heard = listen(client.zone('pjm'));
  const ended = client.zone('ercot');
  ended.close();
  await settle();
  token.resolve('t');
  await settle();
  gateway.socket.greet({ subject: 'alice' });
  assert.deepEqual(gateway.socket.of('subscribe').map(({ channels }) => channels), [['zone:pjm']]);
  assert.deepEqual(gateway.socket.of('unsubscribe'), []);
  gateway.socket.say(price(1));
  assert.deepEqual(heard, [1]);
});

test('12: nothing is queued for the next connection', async () => {
  const { gateway, clock, client } = setUp();
  assert.equal(client.send({ type: 'ping' }), false);
  await settle();
  gateway.socket.greet();
  assert.equal(client.send({ type: 'ping' }), true);
  gateway.socket.readyState = 2;
  assert.equal(client.send({ type: 'ping' }), false);
  gateway.socket.drop();
  assert.equal(client.send({ type: 'ping' }), false);
  await clock.advance(1_500);
  gateway.socket.greet();
  assert.deepEqual(gateway.socket.sent, []);
});
