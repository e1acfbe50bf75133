// Gateways with authentication, with tokens and keys as the program makes them.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import type { Client, ClientError, ClientOptions, End, Status } from 'zonewire';
import { placeOrder } from 'zonewire/orders';
import { Access, fastClock, follow, noGateway, until } from './support/real.js';

const price = (n: number) => ({ key: `k${n}`, price: n });

/** A gateway, and clients of it. */
const setUp = async (access = new Access()) => {
  const gateway = await access.start();
  gateway.token = access.operator;
  const states: Status[] = [];
  const errors: ClientError[] = [];
  const connect = (token?: ClientOptions['token'], options: ClientOptions = {}) => {
    const client = follow(gateway.url, { token, clock: fastClock(20), ...options });
    client.on('state', (status) => states.push(status));
    client.on('error', (error) => errors.push(error));
    return client;
  };
  return { access, gateway, connect, states, errors };
};

const isOpen = (client: Client) => until(() => client.status.state === 'open', () => JSON.stringify(client.status));

/** Follows a zone: the prices that arrived, and how it ended. */
const record = (client: Client, zone: string) => {
  const sub = client.zone(zone, { snapshot: false });
  const had: number[] = [];
  const gaps: object[] = [];
  const ends: End[] = [];
  sub.on('entry', (entry) => entry.type === 'price_update' && had.push(entry.price!));
  sub.on('gap', (gap) => gaps.push(gap));
  sub.on('end', (end) => ends.push(end));
  return { sub, had, gaps, ends };
};

/** What the client is told about its token. */
const tells = (client: Client) => {
  const told: string[] = [];
  client.on('message', ({ type }) => void (['token_expiring', 'authenticated'].includes(type) && told.push(type)));
  return told;
};

describe('a gateway that asks who one is', { skip: noGateway, concurrency: 4 }, () => {
  test('a token, and a key, are shown with the upgrade and not in the address', async () => {
    const access = new Access();
    const key = access.key('desk', '--right', 'subscribe:zone:pjm');
    const { gateway, connect } = await setUp(access);
    for (const token of [access.token('alice', '--role', 'viewer'), key]) {
      const client = connect(token);
      const { sub, had } = record(client, 'pjm');
      await until(() => sub.status === 'live', () => JSON.stringify(client.status));
      await gateway.publish('pjm', price(1));
      await until(() => had.length === 1, 'a price');
      assert.ok(!gateway.log.includes(token));
      client.close();
    }
  });

  test('a token that does not hold is final where it is fixed, and asked for again where it is not', async () => {
    const { access, connect, states, errors } = await setUp();
    const forged = new Access().token('alice', '--role', 'viewer');
    const fixed = connect(forged);
    await until(() => fixed.status.state === 'failed', () => JSON.stringify(fixed.status));
    const { code, reason, message } = fixed.status;
    assert.deepEqual([code, reason, message], [4501, 'unauthorized', 'Sign in again to reconnect.']);
    assert.deepEqual([states.map(({ state }) => state), errors.map((error) => error.code)], [['failed'], ['invalid_token']]);

    let asked = 0;
    const asking = connect(() => (++asked === 1 ? forged : access.token('alice', '--role', 'viewer')));
    await isOpen(asking);
    assert.equal(asked, 2);
    for (const client of [fixed, asking]) client.close();
  });

  test('who has no token where one is needed is told so, and comes in with one', async () => {
    const { access, connect } = await setUp();
    let token = '';
    const client = connect(() => token);
    await until(() => client.status.code === 4501, () => JSON.stringify(client.status));
    token = access.token('alice', '--role', 'viewer');
    client.reconnect();
    await isOpen(client);
    client.close();

    const nobody = connect();
    await until(() => nobody.status.state === 'failed', () => JSON.stringify(nobody.status));
    assert.deepEqual([nobody.status.code, nobody.status.message], [4501, 'Sign in again to reconnect.']);
    nobody.close();
  });

  test('a token is renewed on the open socket when the gateway says that it expires, without a gap', async () => {
    const { access, gateway, connect, states } = await setUp();
    let asked = 0;
    const client = connect(() => access.token('alice', '--role', 'viewer', '--lifetime-s', ++asked === 1 ? '4' : '600'));
    const told = tells(client);
    const { sub, had, gaps } = record(client, 'pjm');
    await until(() => sub.status === 'live', () => JSON.stringify(client.status));
    const until4s = Date.now() + 5_000;
    for (let n = 1; Date.now() < until4s; n++) {
      await gateway.publish('pjm', price(n));
      await until(() => had.length === n, `price ${n}`);
    }
    assert.deepEqual(told, ['token_expiring', 'authenticated']);
    assert.deepEqual([asked, states.map(({ state }) => state), gaps], [2, ['open'], []]);
    assert.deepEqual(had, Array.from(had, (_, index) => index + 1));
    client.close();
  });

  test('a provider that fails for a while is asked again before the token expires, and ends nothing', async () => {
    const { access, connect, states, errors } = await setUp();
    let asked = 0;
    const client = connect(() => {
      if (++asked > 1 && asked < 4) throw new Error('the identity provider is away');
      return access.token('alice', '--role', 'viewer', '--lifetime-s', asked === 1 ? '6' : '600');
    }, { clock: { ...fastClock(20), now: Date.now } }); // the gateway decides when a token expires
    const told = tells(client);
    await until(() => told.includes('authenticated'), () => `${told} ${JSON.stringify(client.status)}`);
    assert.equal(asked, 4);
    assert.deepEqual(errors, Array(2).fill({ code: 'token_unavailable', message: 'the identity provider is away' }));
    assert.deepEqual(states.map(({ state }) => state), ['open']);
    client.close();
  });

  test('a token that expired is replaced at the next attempt (4006), also where the provider fails at first', async () => {
    const { access, gateway, connect, states } = await setUp();
    let asked = 0;
    let isAway = false;
    const client = connect(() => {
      asked++;
      if (isAway) throw new Error('the identity provider is away');
      return access.token('alice', '--role', 'viewer', '--lifetime-s', asked === 1 ? '2' : '600');
    });
    const { sub, had, gaps } = record(client, 'pjm');
    await until(() => sub.status === 'live', () => JSON.stringify(client.status));
    await gateway.publish('pjm', price(1));
    await until(() => had.length === 1, 'one');
    isAway = true;
    await until(() => states.some(({ code }) => code === 4006), () => JSON.stringify(states));
    await gateway.publish('pjm', price(2));
    await until(() => states.some(({ reason }) => reason === 'the identity provider is away'), () => JSON.stringify(states));
    isAway = false;
    await until(() => had.length === 2, () => JSON.stringify(client.status));
    assert.deepEqual([had, gaps], [[1, 2], []]);
    const expired = states.find(({ code }) => code === 4006)!;
    assert.deepEqual([expired.state, expired.reason], ['waiting', 'token_expired']);
    client.close();

    const fixed = connect(access.token('alice', '--role', 'viewer', '--lifetime-s', '2'));
    await until(() => fixed.status.state === 'failed', () => JSON.stringify(fixed.status));
    assert.equal(fixed.status.message, 'Sign in again to reconnect.');
    fixed.close();
  });

  test('a revoked token closes the connection (4501); with another one everything goes on', async () => {
    const { access, gateway, connect, states } = await setUp();
    let token = access.token('alice', '--role', 'viewer');
    const client = connect(() => token);
    const { sub, had, gaps } = record(client, 'pjm');
    await until(() => sub.status === 'live', () => JSON.stringify(client.status));
    const { jti } = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString());
    access.revoke(gateway, '--jti', jti);
    await until(() => states.some(({ code }) => code === 4501), () => JSON.stringify(states));
    await gateway.publish('pjm', price(1));
    token = access.token('alice', '--role', 'viewer');
    client.reconnect();
    await until(() => had.length === 1, () => JSON.stringify(client.status));
    assert.deepEqual([had, gaps], [[1], []]);
    client.close();
  });

  test('a right that is taken away ends its subscription, and no other', async () => {
    const access = new Access();
    const key = access.key('desk', '--right', 'subscribe:zone:pjm', '--right', 'subscribe:zone:ercot');
    const { gateway, connect } = await setUp(access);
    const client = connect(key);
    const [pjm, ercot] = [record(client, 'pjm'), record(client, 'ercot')];
    await until(() => pjm.sub.status === 'live' && ercot.sub.status === 'live', () => JSON.stringify(client.status));
    writeFileSync(access.keys, readFileSync(access.keys, 'utf8').replace('"subscribe:zone:pjm", ', ''));
    await until(() => pjm.ends.length === 1, 'the end of one');
    assert.equal(pjm.ends[0]!.code, 'forbidden');
    await gateway.publish('ercot', price(1));
    await until(() => ercot.had.length === 1, 'the other one');
    assert.deepEqual([client.status.state, ercot.ends], ['open', []]);
    client.close();
  });

  test('a renewal with fewer rights ends what it does not give', async () => {
    const { access, connect } = await setUp();
    let asked = 0;
    const client = connect(() => access.token('alice', '--right', `subscribe:zone:${++asked === 1 ? '*' : 'ercot'}`, '--lifetime-s', asked === 1 ? '4' : '600'));
    const [pjm, ercot] = [record(client, 'pjm'), record(client, 'ercot')];
    await until(() => pjm.ends.length === 1, () => JSON.stringify(client.status));
    assert.deepEqual([pjm.ends[0]!.code, ercot.sub.status, client.status.state], ['forbidden', 'live', 'open']);
    client.close();
  });

  test('everybody may read what is public, and nobody more without a token', async () => {
    const { gateway, connect } = await setUp(new Access('--public', 'public.*'));
    const client = connect();
    const [open, shut] = [record(client, 'public.pjm'), record(client, 'pjm')];
    await until(() => open.sub.status === 'live' && shut.ends.length === 1, () => JSON.stringify(client.status));
    await gateway.publish('public.pjm', price(1));
    await until(() => open.had.length === 1, 'a public price');
    assert.deepEqual([shut.ends[0]!.code, client.status.state], ['forbidden', 'open']);
    await assert.rejects(placeOrder(client, { tokenIn: 'SOL', tokenOut: 'USDC', amount: 1 }), { code: 'unauthorized' });
    client.close();
  });

  test('an order is placed with the token, and is not shown to others', async () => {
    const { access, connect } = await setUp();
    const [alice, bob] = ['alice', 'bob'].map((name) => connect(access.token(name, '--role', 'trader')));
    let orderId = '';
    await placeOrder(alice!, { tokenIn: 'SOL', tokenOut: 'USDC', amount: 1 }, { onPlaced: (id) => (orderId = id) }).catch(({ code }) =>
      assert.match(code, /^(no_liquidity|slippage_exceeded|timeout)$/),
    );
    const ends: End[] = [];
    bob!.order(orderId).on('end', (end) => ends.push(end));
    await until(() => ends.length === 1, () => JSON.stringify(bob!.status));
    assert.equal(ends[0]!.code, 'forbidden');
    for (const client of [alice, bob]) client!.close();
  });
});
