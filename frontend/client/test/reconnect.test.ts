import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connect, delayMs, describe, isFinal } from 'zonewire';
import { FakePage, setUp, settle } from './support/fake.js';

/** Fails each attempt until the client has given up, and says how long it waited before each. */
const exhaust = async (set: ReturnType<typeof setUp>) => {
  const waits: number[] = [];
  for (let n = 0; n < 20 && set.client.status.state !== 'failed'; n++) {
    await settle();
    set.gateway.socket.drop();
    const { state, retryInMs } = set.client.status;
    if (state !== 'waiting') break;
    waits.push(retryInMs!);
    await set.clock.advance(retryInMs!);
  }
  return waits;
};

test('waits 1, 2, 4, 8 and 16 s and up to 1 s at random, drawn anew, and then fails until it is told to reconnect', async () => {
  const drawn = [0, 0.25, 0.5, 0.999, 1, 0.1];
  let draws = 0;
  const set = setUp({ random: () => drawn[draws++]! });
  assert.deepEqual(await exhaust(set), [1_000, 2_250, 4_500, 8_999, 17_000]);
  assert.equal(draws, 5);
  assert.equal(set.gateway.sockets.length, 6);
  assert.deepEqual(set.client.status, {
    state: 'failed', code: 1006, reason: '', attempt: 5, attemptsMax: 5,
    message: 'Connection lost. Reconnect to try again.',
  });
  await set.clock.advance(3_600_000);
  assert.equal(set.gateway.sockets.length, 6);

  set.client.reconnect();
  await settle();
  assert.equal(set.gateway.sockets.length, 7);
  set.gateway.socket.drop();
  assert.deepEqual([set.client.status.state, set.client.status.retryInMs], ['waiting', 1_100], 'with all attempts before it');
});

test('never waits less than the rule says, nor more', () => {
  for (let attempt = 1; attempt <= 5; attempt++) {
    assert.equal(delayMs(attempt, () => 0), 1_000 * 2 ** (attempt - 1));
    assert.equal(delayMs(attempt, () => 1), 1_000 * 2 ** (attempt - 1) + 1_000);
  }
});

test('each state has a sentence for the user, which may be another one', async () => {
  const { gateway, clock, page, states, client } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.drop();
  page.goOffline();
  page.goOnline();
  await settle();
  gateway.socket.drop(4500, 'disconnected');
  client.close();
  assert.deepEqual(states.map(({ state, message }) => [state, message]), [
    ['connecting', 'Connecting…'], ['open', 'Connected.'],
    ['waiting', 'Connection lost. Next try in 2 s (1 of 5).'],
    ['offline', 'You are offline.'],
    ['connecting', 'Connecting…'], ['failed', 'Connection lost. Reconnect to try again.'], ['closed', 'Disconnected.'],
  ]);
  assert.equal(describe({ state: 'failed', code: 4501, attempt: 0, attemptsMax: 5 }), 'Sign in again to reconnect.');
  assert.equal(clock.pending, 0);

  const other = setUp({ text: ({ state, attempt }) => `${state} ${attempt}` });
  assert.equal(other.client.status.message, 'connecting 0');
});

test('every change is one event', async () => {
  const { gateway, clock, states, client } = setUp();
  await settle();
  gateway.socket.greet();
  await clock.advance(6_000);
  gateway.socket.say({ type: 'closing', code: 4001, reason: 'slow_consumer', retry_after_ms: 0 });
  gateway.socket.drop(4001, 'slow_consumer');
  await clock.advance(1_500);
  gateway.socket.greet();
  client.close();
  client.close();
  assert.deepEqual(states.map(({ state, code, reason, attempt }) => [state, code, reason, attempt]), [
    ['connecting', undefined, undefined, 0], ['open', undefined, undefined, 0], ['waiting', 4001, 'slow_consumer', 1],
    ['connecting', undefined, undefined, 1], ['open', undefined, undefined, 0], ['closed', 1000, undefined, 0],
  ]);
  assert.equal(client.status, states.at(-1));
});

test('only a connection that held for 5 s gives attempts back', async () => {
  const { gateway, clock, client } = setUp();
  await settle();
  for (let attempt = 1; attempt <= 4; attempt++) {
    gateway.socket.greet();
    await clock.advance(4_999);
    gateway.socket.drop();
    assert.equal(client.status.attempt, attempt);
    await clock.advance(client.status.retryInMs!);
  }
  gateway.socket.greet();
  await clock.advance(5_000);
  gateway.socket.drop();
  assert.equal(client.status.attempt, 1);
});

test('being offline costs no attempts', async () => {
  const { gateway, clock, page, client, said } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.drop();
  await clock.advance(1_500);
  gateway.socket.drop();
  assert.deepEqual([client.status.state, client.status.attempt], ['waiting', 2]);
  page.goOffline(); // while it waits for the second
  assert.deepEqual([client.status.state, client.status.attempt], ['offline', 1]);

  // It is only a hint, so it is tried now and then.
  for (let minutes = 1; minutes <= 7; minutes++) {
    await clock.advance(60_000);
    assert.equal(client.status.state, 'connecting');
    gateway.socket.drop();
    assert.deepEqual([client.status.state, client.status.attempt], ['offline', 1]);
  }
  page.goOnline();
  assert.equal(client.status.state, 'connecting', 'at once');
  await settle();
  gateway.socket.drop();
  assert.deepEqual([client.status.state, client.status.attempt], ['waiting', 2]);

  // No event says that it went; the attempt that was due is not made.
  page.navigator.onLine = false;
  const sockets = gateway.sockets.length;
  await clock.advance(client.status.retryInMs!);
  assert.deepEqual([client.status.state, client.status.attempt, gateway.sockets.length], ['offline', 1, sockets]);
  page.goOnline();
  await settle();
  gateway.socket.greet();
  assert.equal(said().at(-1), 'open');
});

test('`offline` only asks whether the connection is there still', async () => {
  const { gateway, clock, page, client } = setUp();
  await settle();
  gateway.socket.greet();
  page.goOffline();
  assert.equal(client.status.state, 'open');
  assert.equal(gateway.socket.of('heartbeat').length, 1);
  gateway.socket.say({ type: 'heartbeat_ack', timestamp: '2026-11-21T03:41:47Z' });
  await clock.advance(5_000);
  assert.equal(client.status.state, 'open');
  page.fire('offline');
  await clock.advance(5_000);
  assert.equal(client.status.state, 'offline', 'nothing answered');
});

test('an awakening ends the wait, but not one that the gateway asked for', async () => {
  const { gateway, clock, page, client } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.drop();
  page.document.visibilityState = 'hidden';
  page.fire('visibilitychange');
  assert.equal(client.status.state, 'waiting');
  page.document.visibilityState = 'visible';
  page.fire('visibilitychange');
  assert.deepEqual([client.status.state, client.status.attempt], ['connecting', 0], 'and it costs none');
  await settle();
  gateway.socket.greet();
  gateway.socket.say({ type: 'closing', code: 4000, reason: 'shutting_down', retry_after_ms: 4_768 });
  gateway.socket.drop(4000, 'shutting_down');
  assert.deepEqual([client.status.state, client.status.retryInMs], ['waiting', 4_768]);
  page.fire('visibilitychange');
  page.goOffline();
  page.goOnline();
  await clock.advance(4_767);
  assert.equal(client.status.state, 'waiting');
  await clock.advance(1);
  assert.equal(client.status.state, 'connecting');

  page.navigator.onLine = false; // nor does a network that is away for less
  gateway.socket.greet();
  gateway.socket.say({ type: 'closing', code: 4000, reason: 'shutting_down', retry_after_ms: 4_768 });
  gateway.socket.drop(4000, 'shutting_down');
  assert.equal(client.status.state, 'waiting');
  page.goOnline();
  assert.equal(client.status.state, 'waiting');
  client.reconnect();
  assert.equal(client.status.state, 'connecting', 'the user may');

  // When its time has come and there is no network, that is all that is waited for.
  await settle();
  gateway.socket.greet();
  gateway.socket.say({ type: 'closing', code: 4000, reason: 'shutting_down', retry_after_ms: 4_768 });
  gateway.socket.drop(4000, 'shutting_down');
  page.navigator.onLine = false;
  await clock.advance(4_768);
  assert.equal(client.status.state, 'offline');
  page.goOnline();
  assert.equal(client.status.state, 'connecting');
});

test('what a gateway said about its end does not apply to the next one', async () => {
  const { gateway, clock, client } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.say({ type: 'closing', code: 4000, reason: 'shutting_down', retry_after_ms: 4_768 });
  gateway.socket.drop();
  await clock.advance(4_768);
  gateway.socket.greet();
  gateway.socket.drop();
  assert.deepEqual([client.status.code, client.status.retryInMs], [1006, 2_500]);
  await clock.advance(2_500);
  gateway.socket.greet();
  gateway.socket.say({ type: 'closing', code: 4000, reason: 'shutting_down', retry_after_ms: 4_768 });
  gateway.socket.drop(4500, 'disconnected');
  assert.deepEqual([client.status.state, client.status.code], ['failed', 4500], 'the close frame has the last word');
});

test('an attempt that succeeded is not given back by what comes after it', async () => {
  const { gateway, clock, page, client } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.drop();
  await clock.advance(1_500);
  gateway.socket.greet();
  page.navigator.onLine = false;
  gateway.socket.drop();
  assert.deepEqual([client.status.state, client.status.attempt], ['offline', 1]);
});

test('a page that freezes while it connects gives the attempt back', async () => {
  const { gateway, clock, page, client } = setUp();
  await settle();
  gateway.socket.drop();
  await clock.advance(1_500);
  assert.deepEqual([client.status.state, client.status.attempt], ['connecting', 1]);
  page.fire('freeze');
  assert.deepEqual([client.status.state, client.status.attempt], ['waiting', 0]);
});

test('silence is found though the clock was set back', async () => {
  const { gateway, clock, client } = setUp();
  await settle();
  gateway.socket.greet();
  clock.set(-3_600_000);
  await clock.advance(60_000 + 15_000);
  assert.equal(client.status.state, 'waiting');
});

test('a handler of messages may end it all', async () => {
  const { gateway, clock, client } = setUp();
  client.on('message', () => client.close());
  await settle();
  gateway.socket.greet();
  assert.equal(client.status.state, 'closed');
  assert.equal(clock.pending, 0);
});

test('the close code decides whether to come back', async () => {
  const final = [1000, 1002, 1003, 1007, 1009, 4500, 4501, 4502, 4999];
  const others = [1001, 1005, 1006, 1008, 1010, 1011, 1012, 1013, 1015, 3000, 4000, 4006, 4123, 4499, 5000];
  assert.deepEqual([...final, ...others].filter(isFinal), final);
  for (const code of [...final, ...others]) {
    const { gateway, clock, client } = setUp({ slowRetryMs: 60_000 });
    await settle();
    gateway.socket.greet();
    gateway.socket.drop(code);
    assert.deepEqual([client.status.state, client.status.code], [final.includes(code) ? 'failed' : 'waiting', code]);
    await clock.advance(120_000);
    assert.equal(gateway.sockets.length > 1, !final.includes(code), `${code}`);
    client.close();
  }
});

test('`closing` tells the code where the close frame is lost', async () => {
  const { gateway, client } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.say({ type: 'closing', code: 4500, reason: 'disconnected' });
  gateway.socket.drop(1006);
  assert.deepEqual([client.status.state, client.status.code, client.status.reason], ['failed', 4500, 'disconnected']);
});

test('tries once a minute after giving up, where it is asked to', async () => {
  const set = setUp({ slowRetryMs: 60_000 });
  await exhaust(set);
  assert.equal(set.client.status.state, 'failed');
  for (let minutes = 1; minutes <= 3; minutes++) {
    await set.clock.advance(60_500);
    assert.equal(set.gateway.sockets.length, 6 + minutes);
    set.gateway.socket.drop();
    assert.equal(set.client.status.state, 'failed');
  }
  await set.clock.advance(60_500);
  set.gateway.socket.greet();
  set.gateway.socket.say({ type: 'closing', code: 4004, reason: 'rate_limited', retry_after_ms: 90_000 });
  set.gateway.socket.drop(4004);
  await set.clock.advance(89_999);
  assert.equal(set.client.status.state, 'failed');
  await set.clock.advance(1);
  assert.equal(set.client.status.state, 'connecting');
  set.gateway.socket.greet();
  await set.clock.advance(6_000);
  set.gateway.socket.drop();
  assert.equal(set.client.status.attempt, 1);
});

test('a socket that never opens, and a gateway that never greets, are given up', async () => {
  const { gateway, clock, states } = setUp();
  await clock.advance(10_000 + 1_500);
  gateway.socket.readyState = 1;
  await clock.advance(10_000);
  assert.deepEqual(states.map(({ state, reason }) => [state, reason]), [
    ['connecting', undefined], ['waiting', 'timed out'], ['connecting', undefined], ['waiting', 'timed out'],
  ]);
  gateway.sockets[0]!.greet(); // what comes late is not heard
  assert.equal(states.at(-1)!.state, 'waiting');
});

test('there is one socket at a time', async () => {
  const { gateway, clock, client } = setUp();
  for (let n = 0; n < 5; n++) {
    client.reconnect();
    await settle();
    if (n % 2) gateway.socket.greet();
    client.reconnect();
    for (const { closedWith, onclose } of gateway.sockets) if (closedWith) onclose!({ code: 1000, reason: '' });
    await clock.advance(n * 1_000);
    assert.notEqual(client.status.state, 'failed', 'that an old one has closed is of no concern');
  }
  client.close();
  await clock.advance(60_000);
  assert.ok(gateway.sockets.every(({ closedWith }) => closedWith === 1000));
});

test('handlers that begin anew or end it all in the middle of a change are heeded', async () => {
  const again = setUp();
  let isFirst = true;
  again.client.on('state', ({ state }) => {
    if (state === 'waiting' && isFirst) {
      isFirst = false;
      again.client.reconnect();
    }
  });
  await settle();
  again.gateway.socket.greet();
  again.gateway.socket.drop();
  await settle();
  assert.equal(again.gateway.sockets.length, 2);
  again.gateway.socket.greet();
  await again.clock.advance(0);
  assert.equal(again.client.status.state, 'open');

  const over = setUp();
  over.client.on('state', ({ state }) => state === 'waiting' && over.client.close());
  over.client.zone('pjm').on('status', (status) => status === 'waiting' && over.client.reconnect());
  over.gateway.subscribes({ snapshot: undefined });
  await settle();
  over.gateway.socket.greet();
  over.gateway.socket.drop();
  await settle();
  assert.equal(over.client.status.state, 'connecting', 'by the handler of the subscription, which came first');
  over.gateway.socket.drop();
  assert.equal(over.client.status.state, 'closed');
  await over.clock.advance(60_000);
  assert.equal(over.gateway.sockets.length, 2);
  assert.equal(over.page.listeners, 0);
  assert.throws(() => over.client.zone('pjm'), /closed/);
  over.client.reconnect();
  assert.equal(over.client.status.state, 'closed');
});

test('what is not JSON ends the connection, and nothing is lost by it', async () => {
  const { gateway, client } = setUp();
  await settle();
  gateway.socket.greet();
  gateway.socket.onmessage!({ data: '{"type":"price_up' });
  assert.deepEqual([client.status.state, client.status.reason], ['waiting', 'not JSON']);
});

test('an invalid address is refused at once', () => {
  const { WebSocket } = setUp().gateway;
  assert.throws(() => connect('localhost:8080', { WebSocket }), /not an address: localhost:8080/);
  assert.throws(() => connect('/relative', { WebSocket }), /Invalid URL/);
  if (!('WebSocket' in globalThis)) assert.throws(() => connect('http://gateway.test'), /options\.WebSocket/);
});

test('the socket is at /ws below the address, however that is written', async () => {
  for (const [address, socket, http] of [
    ['https://gateway.test', 'wss://gateway.test/ws', 'https://gateway.test'],
    ['http://gateway.test:8080/', 'ws://gateway.test:8080/ws', 'http://gateway.test:8080'],
    ['wss://gateway.test/base/?x=1#y', 'wss://gateway.test/base/ws', 'https://gateway.test/base'],
    ['ws://[::1]:8080', 'ws://[::1]:8080/ws', 'http://[::1]:8080'],
  ] as const) {
    const { gateway, client } = setUp({}, address);
    await settle();
    assert.equal(gateway.socket.url, socket);
    assert.equal(await client.address(), http);
  }
});

test('the page is heeded by its window, and by nobody where there is none', async () => {
  const page = new FakePage();
  const { client, clock } = setUp({ page });
  assert.ok(page.listeners > 0);
  client.close();
  await clock.advance(0);
  assert.equal(page.listeners, 0);
  setUp({ page: null }).client.close();
});
