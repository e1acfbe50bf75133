// Events and views of them, with a gateway as users run it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { event, eventChannel, type EventEntry } from 'zonewire/events';
import { follow, Gateway, noGateway, until } from './support/real.js';

const ticker = (exchange: string, symbol: string, price: number) => ({ exchange, symbol, price });

test('a filter has one name', () => {
  assert.equal(eventChannel('ticker'), 'event:ticker');
  assert.equal(eventChannel('ticker', { exchange: 'a' }), 'event:ticker:a:*');
  assert.equal(eventChannel('trade', { symbol: 'B' }), 'event:trade:*:B');
  assert.equal(eventChannel('candle', { exchange: 'a', symbol: 'B' }), 'event:candle:a:B:*');
  assert.equal(eventChannel('exchange:error', { exchange: 'a', symbol: 'B' }), 'event:exchange:error:a');
});

describe('a gateway in memory', { skip: noGateway }, () => {
  test('sends of a view what it shows, and what it leaves out is no gap', async () => {
    const gateway = await Gateway.start('serve', '--storage', 'memory');
    const publish = async (...events: object[]) => {
      const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(events) };
      const answer = await fetch(`${gateway.url}/api/events/ticker`, init);
      assert.equal(answer.status, 200, await answer.text());
    };
    await publish(ticker('a', 'B', 1), ticker('b', 'B', 2), ticker('a', 'C', 3));
    const client = follow(gateway.url);
    const sub = event(client, 'ticker', { exchange: 'a' });
    const had: [boolean, number][] = [];
    const take = (entry: EventEntry<'ticker'>) => {
      if (entry.type === 'ticker') had.push([!!entry.snapshot, entry.data.price as number]);
    };
    sub.on('entry', take);
    sub.on('gap', () => assert.fail('nothing is missing'));
    await until(() => sub.status === 'live', 'live');
    assert.deepEqual(had, [[true, 1], [true, 3]]);
    await publish(ticker('b', 'B', 4), ticker('b', 'B', 5), ticker('a', 'B', 6));
    await until(() => had.length === 3, 'what follows');
    const connected = () => client.status.state === 'open';
    client.reconnect();
    await publish(ticker('b', 'B', 7), ticker('a', 'B', 8));
    await until(() => connected() && had.length === 4, 'what came meanwhile');
    assert.deepEqual(had.slice(2), [[false, 6], [false, 8]]);
    client.close();
  });
});
