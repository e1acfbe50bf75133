// Why no WebSocket came about: what is asked over HTTP, of real gateways and of what may stand before them.

import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, test } from 'node:test';

import { isFinal, type ClientOptions, type Status } from 'zonewire';
import { refusal } from 'zonewire/refusal';
import { setUp, settle } from './support/fake.js';
import { fastClock, follow, Gateway, noGateway, until } from './support/real.js';

/** Something that answers every request, also those for a WebSocket, with this. */
const answering = async (listener: RequestListener) => {
  const server = createServer(listener);
  server.on('upgrade', (_, socket) => socket.end('HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
};

const states = (client: ReturnType<typeof follow>) => {
  const all: Status[] = [];
  client.on('state', (status) => all.push(status));
  return all;
};

describe('a gateway that refuses', { skip: noGateway }, () => {
  test('what it refuses for good is tried once, and said', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory');
    const refused = follow(`${gateway.url}/nowhere`, { refusal });
    const all = states(refused);
    await until(() => all.some(({ state }) => state === 'failed'), () => JSON.stringify(all));
    assert.deepEqual([all.map(({ state }) => state), refused.status.code], [['failed'], 404]);
    assert.match(refused.status.reason!, /^not_found: there is nothing/);
    // Without the question it is tried as often as anything that may be over soon.
    const client = follow(`${gateway.url}/nowhere`, { clock: fastClock(100) });
    const attempts = states(client);
    await until(() => client.status.state === 'failed', () => JSON.stringify(attempts));
    assert.equal(attempts.filter(({ state }) => state === 'connecting').length, 5);
    client.close();
  });

  test('an address with which all is well is none of its business', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory');
    assert.equal(await refusal(gateway.url), undefined);
    await gateway.kill();
    const { code, reason } = (await refusal(gateway.url))!;
    assert.deepEqual([code, reason.includes('ECONNREFUSED')], [1006, true]);
  });
});

test('an answer that is not from a gateway is no refusal', async () => {
  const url = await answering((_, response) => response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>404</h1>'));
  assert.deepEqual(await refusal(url), { code: 1006, reason: `${url} answers 404, and is no gateway` });
  const client = follow(url, { refusal, clock: fastClock(100) });
  const all = states(client);
  await until(() => client.status.state === 'failed', () => JSON.stringify(all));
  assert.deepEqual([client.status.code, all.filter(({ state }) => state === 'connecting').length], [1006, 5]);
  client.close();
});

test('a gateway without room says when to come back', async () => {
  const url = await answering((_, response) =>
    response.writeHead(503, { 'content-type': 'application/problem+json', 'retry-after': '7' }).end('{"code":"too_many_connections","detail":"no room"}'),
  );
  const client = follow(url, { refusal });
  await until(() => client.status.state === 'waiting', () => JSON.stringify(client.status));
  const { code, reason, retryInMs } = client.status;
  assert.deepEqual([code, reason, retryInMs], [503, 'too_many_connections: no room', 7_000]);
  client.close();
});

test('a page that may not read the answer is told that there is one, and tries on', async () => {
  // As a browser does with an answer that is not for pages of this origin.
  const { fetch } = globalThis;
  const asked: [url: string, mode: string | undefined][] = [];
  globalThis.fetch = async (url, init) => {
    asked.push([String(url), init?.mode]);
    if (init?.mode !== 'no-cors') throw new TypeError('Failed to fetch');
    return new Response();
  };
  try {
    const { code, reason } = (await refusal('http://gateway.test'))!;
    assert.deepEqual([code, isFinal(code)], [1006, false]);
    assert.match(reason, /answers, but not to pages of this origin.*http\.origins/);
    assert.deepEqual(asked, [['http://gateway.test/ws', undefined], ['http://gateway.test/health/live', 'no-cors']]);
  } finally {
    globalThis.fetch = fetch;
  }
});

test('statuses are final as the protocol says', () => {
  const final = [400, 403, 404, 421, 426, 429, 500, 503].filter(isFinal);
  assert.deepEqual(final, [400, 403, 404, 421, 426]);
});

test('it is asked only where there was no greeting and no close code, and its answer is not heeded when it is late', async () => {
  const asked: ((refusal: { code: number; reason: string } | undefined) => void)[] = [];
  const refusal: ClientOptions['refusal'] = () => new Promise((resolve) => asked.push(resolve));
  const { gateway, client, clock } = setUp({ refusal });
  await settle();
  gateway.socket.greet();
  await clock.advance(5_000);
  gateway.socket.drop();
  assert.deepEqual([asked.length, client.status.state], [0, 'waiting'], 'a connection that broke');
  await clock.advance(2_000);
  gateway.socket.drop(4005, 'too_many_connections');
  assert.deepEqual([asked.length, client.status.code], [0, 4005], 'a code');
  await clock.advance(4_000);
  gateway.socket.drop();
  assert.deepEqual([asked.length, client.status.state], [1, 'connecting'], 'neither');
  client.reconnect();
  await settle();
  asked[0]!({ code: 404, reason: 'not_found' });
  await settle();
  assert.equal(client.status.state, 'connecting', 'another attempt');
  gateway.socket.drop();
  await clock.advance(10_000);
  assert.deepEqual([client.status.state, client.status.reason], ['waiting', 'timed out'], 'no answer');
  asked[1]!(undefined);
  await settle();
  await clock.advance(2_000);
  gateway.socket.drop();
  asked[2]!({ code: 404, reason: 'not_found' });
  await settle();
  assert.deepEqual([client.status.state, client.status.code], ['failed', 404]);
  client.close();
});
