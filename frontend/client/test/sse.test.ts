import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connect, type ClientOptions } from 'zonewire';
import { fallback } from 'zonewire/sse';
import { setUpEvents } from './support/events.js';
import { FakeGateway, listen, price, settle } from './support/fake.js';
import { FakeEvents } from './support/events.js';

const of = (channel: string, offset: number) => ({ ...price(offset), channel, id: `${channel}-${offset}` });

/** A client that follows two zones, of which one has a snapshot. */
const following = async (options?: ClientOptions) => {
  const set = await setUpEvents(options);
  const { gateway, client } = set;
  gateway.stream.greet();
  await settle();
  const [a, b] = [client.zone('a', { snapshot: false }), client.zone('b')];
  const heard = [listen(a), listen(b)];
  await settle();
  gateway.stream.greet();
  gateway.stream.subscribed('zone:b', ',eb:7', { snapshot: true });
  gateway.stream.subscribed('zone:a', 'ea:3,eb:7');
  await settle();
  return { ...set, a, b, heard: heard as [unknown[], unknown[]] };
};

test('asks for a stream of what is subscribed to, in one go, with the token in a header', async () => {
  const { gateway, client, states } = await setUpEvents({ token: 'a.b.c' });
  const first = gateway.stream;
  assert.deepEqual([first.path, first.query], ['/base/sse', {}]);
  assert.deepEqual(first.headers, { accept: 'text/event-stream', authorization: 'Bearer a.b.c' });
  const a = client.zone('a', { snapshot: false });
  client.zone('b');
  client.order('6F1C1C1E-0B5E-4B1E-9D3E-0A6F4B6F2A11');
  first.greet();
  await settle();
  assert.deepEqual(states, ['open']);
  assert.ok(first.isGone);
  assert.equal(gateway.streams.length, 2);
  assert.deepEqual(gateway.stream.query, {
    channels: 'zone:a,zone:b,order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11', snapshot: '0,1,1',
  });
  assert.equal(gateway.stream.headers['last-event-id'], undefined);
  gateway.stream.greet();
  gateway.stream.subscribed('zone:a', 'e:5,,');
  gateway.stream.say(of('zone:a', 6), 'e:6,,');
  await settle();
  assert.deepEqual([a.status, a.position, states.at(-1)], ['live', { epoch: 'e', offset: 6 }, 'open']);
  assert.equal(client.backend?.storage_backend, 'in-memory');
  assert.equal(client.send({ type: 'subscribe', channels: [] } as never), true);
  client.close();
  await settle();
  assert.ok(gateway.stream.isGone);
  assert.equal(gateway.streams.length, 2);
});

test('another subscription takes another stream, which goes on where the first one was, silently', async () => {
  const { gateway, client, a, heard } = await following();
  const told: unknown[] = [];
  for (const type of ['subscribed', 'resync', 'status'] as const) a.on(type, (what) => told.push(what));
  gateway.stream.say({ ...of('zone:b', 2), snapshot: true });
  gateway.stream.say({ type: 'snapshot_end', channel: 'zone:b', epoch: 'eb', offset: 7, recovered: true }, 'ea:3,eb:7');
  gateway.stream.say(of('zone:a', 4), 'ea:4,eb:7');
  await settle();
  client.zone('c', { since: { epoch: 'ec', offset: 1 } });
  await settle();
  assert.deepEqual(gateway.stream.query, { channels: 'zone:a,zone:b,zone:c', snapshot: '0,1,0' });
  assert.equal(gateway.stream.headers['last-event-id'], 'ea:4,eb:7,ec:1');
  gateway.stream.greet();
  gateway.stream.subscribed('zone:a', 'ea:4,eb:7,ec:1', { top: 5 });
  gateway.stream.subscribed('zone:b', 'ea:4,eb:7,ec:1');
  gateway.stream.subscribed('zone:c', 'ea:4,eb:7,ec:1');
  gateway.stream.say(of('zone:a', 5), 'ea:5,eb:7,ec:1');
  gateway.stream.say({ type: 'caught_up', channel: 'zone:a' });
  await settle();
  assert.deepEqual(heard, [[4, 5], [2]]);
  assert.deepEqual(told, []);
  client.subscriptions.get('zone:b')!.close();
  await settle();
  assert.deepEqual([gateway.stream.query.channels, gateway.stream.headers['last-event-id']], ['zone:a,zone:c', 'ea:5,ec:1']);
});

test('what a stream says of a channel that goes on is told as a WebSocket would tell it', async () => {
  const { gateway, client, a, heard } = await following();
  const resyncs: unknown[] = [];
  a.on('resync', ({ old_epoch, epoch, offset, recovered }) => resyncs.push([old_epoch, epoch, offset, recovered]));
  client.zone('c', { snapshot: false });
  await settle();
  gateway.stream.greet({ state: 'degraded' });
  gateway.stream.subscribed('zone:a', 'f.ea:3,eb:7,');
  gateway.stream.subscribed('zone:b', 'f.ea:3,e2:9,', { recovered: false, gap: undefined, snapshot: true });
  await settle();
  assert.deepEqual(resyncs, [['ea', 'f.ea', 3, true]]);
  assert.deepEqual(heard, [[], []], 'where a snapshot is cut short no more is missing');
  assert.equal(a.degraded, true);
  gateway.stream.say({ type: 'resync', channel: 'zone:a', old_epoch: 'f.ea', epoch: 'e4', offset: 8, recovered: false, gap: 2 }, 'e4:8,e2:9,');
  await settle();
  client.zone('d', { snapshot: false });
  await settle();
  gateway.stream.greet({ state: 'degraded' });
  gateway.stream.subscribed('zone:a', 'e4:8,e2:9,,', { recovered: false, gap: 5 });
  await settle();
  assert.deepEqual(resyncs.slice(1), [['f.ea', 'e4', 8, false], ['e4', 'e4', 8, false]]);
  assert.deepEqual(heard[0].map((gap) => (gap as { missed: number }).missed), [2, 5]);
});

test('a stream that breaks is waited for, and resumed', async () => {
  const { gateway, clock, client, heard } = await following();
  gateway.stream.say(of('zone:a', 4), 'ea:4,eb:7');
  await settle();
  gateway.stream.drop();
  await settle();
  assert.deepEqual([client.status.state, client.status.code, client.status.reason], ['waiting', 1006, 'the network went away']);
  await clock.advance(1_500);
  gateway.stream.drop();
  await settle();
  assert.equal(client.status.attempt, 2);
  await clock.advance(2_500);
  gateway.stream.greet();
  await settle();
  assert.deepEqual(gateway.stream.query, { channels: 'zone:a,zone:b', snapshot: '0,1' });
  assert.equal(gateway.stream.headers['last-event-id'], 'ea:4,eb:7');
  gateway.stream.greet();
  gateway.stream.subscribed('zone:a', 'ea:4,eb:7');
  gateway.stream.say(of('zone:a', 5), 'ea:5,eb:7');
  await settle();
  assert.deepEqual(heard[0], [4, 5]);
  gateway.stream.end();
  await settle();
  assert.deepEqual([client.status.state, client.status.code, client.status.reason], ['waiting', 1006, 'the stream ended']);
});

test('an end that the gateway tells has its code, and says when to come back', async () => {
  const { gateway, clock, client } = await following();
  gateway.stream.say({ type: 'closing', code: 4000, reason: 'shutting_down', retry_after_ms: 4_321 });
  gateway.stream.end();
  await settle();
  assert.deepEqual([client.status.state, client.status.code, client.status.retryInMs], ['waiting', 4000, 4_321]);
  const count = gateway.streams.length;
  await clock.advance(4_320);
  assert.equal(gateway.streams.length, count);
  await clock.advance(1);
  gateway.stream.begin();
  gateway.stream.say({ type: 'closing', code: 4005, reason: 'too_many_connections', retry_after_ms: 2_000 });
  gateway.stream.end();
  await settle();
  assert.deepEqual([client.status.state, client.status.code, client.status.retryInMs], ['waiting', 4005, 2_000]);
  await clock.advance(2_000);
  gateway.stream.greet();
  await settle();
  gateway.stream.greet();
  gateway.stream.say({ type: 'closing', code: 4501, reason: 'unauthorized' }, 'final');
  gateway.stream.end();
  await settle();
  assert.deepEqual([client.status.state, client.status.code], ['failed', 4501]);
});

test('a stream that has nothing left leaves the client as it is', async () => {
  const { gateway, client } = await setUpEvents();
  gateway.stream.greet();
  await settle();
  const order = '6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11';
  const heard = listen(client.order(order) as never);
  await settle();
  const channel = `order:${order}`;
  gateway.stream.greet();
  gateway.stream.subscribed(channel, 'e:0', { orderId: order });
  gateway.stream.say({ type: 'confirmed', channel, orderId: order, offset: 1, id: 'x-1', timestamp: '' }, 'e:1');
  gateway.stream.say({ type: 'unsubscribed', channel, code: 'finished' });
  gateway.stream.say({ type: 'closing', code: 1000, reason: 'normal' }, 'final');
  gateway.stream.end();
  await settle();
  assert.deepEqual(heard.map((what) => what.code ?? what), [1, 'finished']);
  assert.deepEqual([client.status.state, gateway.stream.query], ['open', {}]);
  gateway.stream.greet();
  client.zone('a');
  await settle();
  assert.equal(gateway.stream.query.channels, 'zone:a');
  assert.equal(gateway.stream.headers['last-event-id'], undefined);
});

test('a channel that is refused ends alone', async () => {
  const { gateway, client, a, heard } = await following();
  const refused = listen(client.zone('c'));
  await settle();
  gateway.stream.refuse(403, { code: 'forbidden', detail: 'no right', channel: 'zone:c' });
  await settle();
  assert.deepEqual(refused.map(({ code, message }) => [code, message]), [['forbidden', 'no right']]);
  assert.deepEqual([gateway.stream.query.channels, client.status.state], ['zone:a,zone:b', 'open']);
  assert.equal(gateway.stream.headers['last-event-id'], 'ea:3,eb:7');
  for (const [code, told] of [['invalid_name', 'invalid_channel'], ['unknown_order', 'forbidden'], ['invalid_query', 'too_many_subscriptions']]) {
    const sub = client.zone('c');
    const ends = listen(sub);
    await settle();
    gateway.stream.refuse(400, { code, detail: 'no', channel: 'zone:c' });
    await settle();
    assert.deepEqual(ends.map(({ code }) => code), [told]);
  }
  // A channel that was followed and no longer may be, and an error on a stream.
  gateway.stream.greet();
  gateway.stream.say({ type: 'unsubscribed', channel: 'zone:b', code: 'forbidden' });
  await settle();
  assert.equal((heard[1].at(-1) as { code: string }).code, 'forbidden');
  const d = listen(client.zone('d', { snapshot: false }));
  await settle();
  gateway.stream.greet();
  gateway.stream.say({ type: 'error', code: 'storage_unavailable', temporary: true, message: 'soon', channel: 'zone:d' });
  gateway.stream.say({ type: 'error', code: 'too_many_zones', temporary: false, message: 'full', channel: 'zone:d' });
  await settle();
  assert.deepEqual(d.map(({ code }) => code), ['too_many_zones']);
  gateway.stream.say({ type: 'error', code: 'too_many_zones', temporary: false, message: 'full', channel: 'zone:a' });
  await settle();
  assert.deepEqual([a.status, (heard[0].at(-1) as { code: string }).code, client.status.state], ['ended', 'too_many_zones', 'open']);
  assert.deepEqual([...client.subscriptions.keys()], []);
});

test('a gateway that refuses for good is left, and so are others only for a while', async () => {
  for (const [status, problem, headers, state, code] of [
    [401, { code: 'unauthorized', detail: 'it has expired' }, {}, 'failed', 4501],
    [403, { code: 'forbidden', detail: 'no right' }, {}, 'failed', 4501],
    [404, { code: 'not_found', detail: 'nothing here' }, {}, 'failed', 4502],
    [429, { code: 'connecting_too_often' }, { 'retry-after': '7' }, 'waiting', 4004],
    [503, { code: 'too_many_connections' }, { 'retry-after': '7' }, 'waiting', 4005],
    [503, { code: 'shutting_down' }, { 'retry-after': '7' }, 'waiting', 4000],
    [500, { code: 'internal' }, {}, 'waiting', 1006],
    // From an intermediary.
    [403, undefined, {}, 'waiting', 1006],
    [502, undefined, {}, 'waiting', 1006],
    [200, undefined, {}, 'waiting', 1006],
  ] as const) {
    const { gateway, client } = await setUpEvents();
    gateway.stream.refuse(status, problem, headers);
    await settle();
    assert.deepEqual([client.status.state, client.status.code], [state, code], `${status} ${problem?.code}`);
    if (headers && 'retry-after' in headers) assert.equal(client.status.retryInMs, 7_000);
    client.close();
  }
});

test('silence is answered by a stream that is new, or ends it', async () => {
  const { gateway, clock, client, heard } = await following();
  const count = gateway.streams.length;
  await clock.advance(60_000);
  assert.equal(gateway.streams.length, count + 1);
  assert.equal(gateway.stream.headers['last-event-id'], 'ea:3,eb:7');
  gateway.stream.greet();
  await settle();
  gateway.stream.say({ type: 'heartbeat', timestamp: '' });
  gateway.stream.say(of('zone:a', 4), 'ea:4,eb:7');
  await clock.advance(60_000);
  assert.equal(client.status.state, 'open');
  assert.equal(gateway.streams.length, count + 2);
  assert.deepEqual(heard[0], [4]);
  await clock.advance(15_000);
  assert.deepEqual([client.status.state, client.status.reason], ['waiting', 'silence']);
});

test('a token that expires is renewed by a stream with another one; where that is refused, the one before goes on', async () => {
  let token = 'one';
  const { gateway, client, heard } = await following({ token: () => token });
  const errors: string[] = [];
  client.on('error', ({ code }) => errors.push(code));
  assert.equal(gateway.stream.headers.authorization, 'Bearer one');
  const expiring = { type: 'token_expiring', expires_at: '2026-11-21T03:41:47Z' };
  token = 'bad';
  gateway.stream.say(expiring);
  await settle();
  assert.equal(gateway.stream.headers.authorization, 'Bearer bad');
  gateway.stream.refuse(401, { code: 'unauthorized', detail: 'no' });
  await settle();
  assert.deepEqual([errors, client.status.state], [['invalid_token'], 'open']);
  assert.equal(gateway.stream.headers.authorization, 'Bearer one');
  gateway.stream.greet();
  token = 'two';
  gateway.stream.say(expiring);
  await settle();
  assert.equal(gateway.stream.headers.authorization, 'Bearer two');
  assert.equal(gateway.stream.headers['last-event-id'], 'ea:3,eb:7');
  const told: unknown[] = [];
  client.on('message', ({ type }) => told.push(type));
  gateway.stream.greet({ subject: 'alice', token_expires_at: '2026-11-22T03:41:47Z' });
  gateway.stream.say(of('zone:a', 4), 'ea:4,eb:7');
  await settle();
  assert.deepEqual(told, ['authenticated', 'price_update']);
  assert.deepEqual([errors, heard[0]], [['invalid_token'], [4]]);
});

test('events are read however they are cut, and whatever ends a line', async () => {
  const { gateway, client } = await setUpEvents();
  gateway.stream.greet();
  await settle();
  const said: string[] = [];
  client.on('message', (message) => 'text' in message && said.push((message as { text: string }).text));
  const text = 'ä\u2028\u{1f600}: x';
  const json = JSON.stringify({ type: 'of_a_newer_gateway', text });
  const [first, second] = [json.slice(0, 10), json.slice(10)];
  const bytes = new TextEncoder().encode(`:\n:comment\rretry: 5\r\ndata\n\nid\nevent: x\ndata:${json}\r\r\ndata: ${json}\r\n\r\n\ndata: {\ndata: ${first.slice(1)}${second}\n\n:not ended`);
  for (let step = 1; step <= bytes.length; step += step < 12 ? 1 : 40) {
    said.length = 0;
    for (let at = 0; at < bytes.length; at += step) {
      gateway.stream.bytes(bytes.slice(at, at + step));
      await settle();
    }
    assert.deepEqual(said, [text, text, text], `in pieces of ${step}`);
    gateway.stream.bytes('\ndata:\n\n');
    await settle();
  }
  assert.equal(client.status.state, 'open');
  gateway.stream.bytes('data: not JSON\n\n');
  await settle();
  assert.deepEqual([client.status.state, client.status.code], ['waiting', 1006]);
});

/** A client with both, and everything that was tried. */
const either = async () => {
  const [sockets, streams] = [new FakeGateway(), new FakeEvents()];
  const { clock } = sockets;
  const client = connect('https://gateway.test', {
    WebSocket: fallback({ WebSocket: sockets.WebSocket!, fetch: streams.fetch, clock }), clock, random: () => 0.5, page: null,
  });
  await settle();
  return { sockets, streams, clock, client, tried: () => [sockets.sockets.length, streams.streams.length] };
};

test('a WebSocket that gets through is all that is tried', async () => {
  const { sockets, clock, client, tried } = await either();
  sockets.socket.greet();
  await clock.advance(10_000);
  client.zone('a');
  assert.equal(sockets.socket.of('subscribe').length, 1);
  sockets.socket.drop(4000, 'shutting_down');
  assert.deepEqual([client.status.state, client.status.code], ['waiting', 4000]);
  await clock.advance(1_500);
  sockets.socket.greet();
  assert.deepEqual(tried(), [2, 0]);
  client.close();
  assert.equal(sockets.socket.closedWith, 1000);
});

test('one that is refused is followed by events within the same attempt; and then these come first, for ten minutes', async () => {
  const { sockets, streams, clock, client, tried } = await either();
  const states: string[] = [];
  client.on('state', ({ state }) => states.push(state));
  sockets.socket.drop(1006, 'Unexpected server response: 403');
  await settle();
  streams.stream.greet();
  await settle();
  assert.deepEqual([states, client.status.attempt, tried()], [['open'], 0, [1, 1]]);
  const heard = listen(client.zone('a', { snapshot: false }));
  await settle();
  streams.stream.greet();
  streams.stream.subscribed('zone:a', 'e:0');
  streams.stream.say(of('zone:a', 1), 'e:1');
  await settle();
  assert.deepEqual(heard, [1]);
  const again = async () => {
    streams.stream.drop();
    await clock.advance(1_500);
  };
  await again();
  assert.deepEqual(tried(), [1, 3]);
  streams.stream.greet();
  await settle();
  streams.stream.greet();
  // Ten minutes of heartbeats.
  for (let n = 0; n < 20; n++) {
    streams.stream.say({ type: 'heartbeat', timestamp: '' });
    await clock.advance(30_000);
  }
  await again();
  assert.deepEqual(tried(), [2, 4], 'a WebSocket is tried again');
  sockets.socket.greet();
  await settle();
  assert.deepEqual(sockets.socket.of('subscribe')[0].since, { 'zone:a': { epoch: 'e', offset: 1 } });
});

test('one that says nothing has events tried beside it, and whoever speaks first is taken', async () => {
  const slow = await either();
  await slow.clock.advance(2_999);
  assert.deepEqual(slow.tried(), [1, 0]);
  await slow.clock.advance(1);
  assert.deepEqual(slow.tried(), [1, 1]);
  slow.sockets.socket.greet();
  await settle();
  assert.ok(slow.streams.stream.isGone);
  assert.equal(slow.client.status.state, 'open');

  const hangs = await either();
  await hangs.clock.advance(3_000);
  hangs.streams.stream.greet();
  await settle();
  assert.deepEqual([hangs.client.status.state, hangs.sockets.socket.closedWith], ['open', undefined]);
  assert.equal(hangs.sockets.socket.readyState, 3);
  hangs.sockets.socket.drop();
  hangs.sockets.socket.greet();
  await settle();
  assert.equal(hangs.client.status.state, 'open', 'it is not heeded any more');

  const closed = await either();
  await closed.clock.advance(3_000);
  closed.client.close();
  await settle();
  assert.ok(closed.streams.stream.isGone && closed.sockets.socket.readyState === 3);
  assert.equal(closed.clock.pending, 0);
});

test('where neither gets through, it is as without events', async () => {
  const { sockets, streams, clock, client, tried } = await either();
  sockets.socket.drop(1006, 'ECONNREFUSED');
  await settle();
  assert.equal(client.status.state, 'connecting');
  streams.stream.drop('fetch failed');
  await settle();
  assert.deepEqual([client.status.state, client.status.code, client.status.reason], ['waiting', 1006, 'ECONNREFUSED']);
  await clock.advance(1_500);
  assert.deepEqual(tried(), [2, 1], 'a WebSocket first');
  await clock.advance(3_000);
  streams.stream.drop('fetch failed');
  await settle();
  assert.equal(client.status.state, 'connecting', 'it may still come');
  sockets.socket.drop(1006, 'timed out');
  await settle();
  assert.deepEqual([client.status.state, client.status.attempt], ['waiting', 2]);
  // What the gateway itself says about a token holds for both.
  await clock.advance(2_500);
  sockets.socket.drop();
  await settle();
  streams.stream.refuse(401, { code: 'unauthorized', detail: 'no' });
  await settle();
  assert.deepEqual([client.status.state, client.status.code], ['failed', 4501]);
});
