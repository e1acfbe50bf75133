import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { OrderError, placeOrder, watchOrder } from 'zonewire/orders';
import { setUp, settle } from './support/fake.js';
import { follow, Gateway, noGateway, Proxy, until } from './support/real.js';

const swap = { tokenIn: 'SOL', tokenOut: 'USDC', amount: 1.5 };

describe('with a gateway', { skip: noGateway }, () => {
  test('places an order and follows it, through a connection that is cut', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', '--set', 'orders.paper.failure_rate=0', '--set', 'connections.order_linger_ms=50');
    const proxy = await new Proxy(() => gateway.port).listen();
    const client = follow(proxy.url);
    const progress: number[] = [];
    let placed: string | undefined;
    const end = await placeOrder(client, swap, {
      onPlaced: (orderId) => (placed = orderId),
      onProgress(update) {
        if ('progress' in update) progress.push(update.progress);
        if (progress.length === 3) {
          proxy.cut();
          client.reconnect();
        }
      },
    });
    assert.equal(end.type, 'confirmed');
    assert.equal(end.orderId, placed);
    assert.deepEqual(progress, [10, 30, 50, 70, 75, 90, 100]);
    assert.equal(client.subscriptions.size, 0);

    // The order has ended, and is reported again.
    assert.equal((await watchOrder(client, placed!.toUpperCase())).offset, end.offset);

    const wrong = await placeOrder(client, { ...swap, amount: -1 }).catch((error: OrderError) => error);
    assert.ok(wrong instanceof OrderError);
    assert.equal(wrong.code, 'invalid_order');
    assert.deepEqual(wrong.details.problem?.errors?.map(({ field }) => field), ['amount']);
    client.close();
  });

  test('an order that fails is an error that says why', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', '--set', 'orders.paper.failure_rate=1', '--set', 'orders.attempts_max=1');
    const client = follow(gateway.url);
    const error = (await placeOrder(client, swap).catch((error) => error)) as OrderError;
    assert.equal(error.details.failed?.type, 'failed');
    assert.equal(error.code, error.details.failed?.error.code);
    client.close();
  });

  test('an order is placed once, though the answer was lost', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory', '--set', 'orders.paper.failure_rate=0');
    const client = follow(gateway.url);
    let requests = 0;
    const end = await placeOrder(client, swap, {
      async fetch(...request) {
        const answer = await fetch(...request);
        if (++requests === 1) throw new Error('the answer is lost');
        return answer;
      },
    });
    assert.equal(requests, 2);
    const { orders } = await gateway.get('/api/orders');
    assert.deepEqual(orders.map(({ orderId }: { orderId: string }) => orderId), [end.orderId]);
    client.close();
  });
});

const answers = (...list: [status: number, body: object, headers?: Record<string, string>][]) => {
  const requests: { url: string; headers: Record<string, string> }[] = [];
  return {
    requests,
    fetch: (async (url: string, { headers }: { headers: Record<string, string> }) => {
      requests.push({ url, headers });
      const [status, body, more] = list.shift()!;
      return new Response(JSON.stringify(body), { status, headers: more });
    }) as unknown as typeof fetch,
  };
};

test('is sent again with the same key where the answer says "later", and with the token of the moment', async () => {
  let tokens = 0;
  const { gateway, client } = setUp({ token: () => `t${++tokens}` }, 'wss://gateway.test/base');
  await settle();
  gateway.subscribes();
  gateway.socket.greet({ subject: 'alice' });
  const orderId = 'fe1c3314-8fc0-4c94-b141-dad534ca416e';
  const { requests, fetch } = answers([503, { code: 'queue_full' }], [502, {}], [202, { orderId }], [200, { lastUpdate: { type: 'confirmed', progress: 100 } }]);
  const placed = placeOrder(client, swap, { fetch });
  await until(() => client.subscriptions.size, 'watched');
  await settle();
  // Its stored updates are gone, and it has ended.
  gateway.socket.say({ type: 'unsubscribed', channel: `order:${orderId}`, code: 'finished' });
  assert.deepEqual(await placed, { type: 'confirmed', progress: 100 });
  assert.deepEqual(requests.map(({ url }) => url.replace('https://gateway.test/base', '')), [
    '/api/orders/execute', '/api/orders/execute', '/api/orders/execute', `/api/orders/${orderId}`,
  ]);
  assert.equal(new Set(requests.slice(0, 3).map(({ headers }) => headers['idempotency-key'])).size, 1);
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), ['Bearer t2', 'Bearer t3', 'Bearer t4', 'Bearer t5']);
  client.close();
});

test('says whether an order may have been placed after all', async () => {
  const { client } = setUp();
  const refused = answers([503, { code: 'queue_full', detail: 'full' }]);
  await assert.rejects(placeOrder(client, swap, { ...refused, placeForMs: 0 }), { code: 'queue_full', message: 'full' });
  const lost = answers([504, {}], [503, { code: 'queue_full' }]);
  await assert.rejects(
    placeOrder(client, swap, { ...lost, placeForMs: 300, idempotencyKey: 'mine' }),
    (error: OrderError) => error.code === 'no_answer' && error.details.idempotencyKey === 'mine',
  );
  client.close();
});

test('a signal stops the watching, and nothing is left of it', async () => {
  const { gateway, client } = setUp();
  await settle();
  gateway.subscribes();
  gateway.socket.greet();
  const abort = new AbortController();
  const watched = watchOrder(client, 'fe1c3314-8fc0-4c94-b141-dad534ca416e', { signal: abort.signal });
  await settle();
  abort.abort(new Error('enough'));
  await assert.rejects(watched, /enough/);
  assert.equal(client.subscriptions.size, 0);
  await assert.rejects(placeOrder(client, swap, { signal: abort.signal }), /enough/);
  client.close();
});
