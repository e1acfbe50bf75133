// What users write has the types that it should; only compiled.

import { connect, type Gap, type PriceUpdate, type SubscriptionError } from 'zonewire';
import { event } from 'zonewire/events';
import { placeOrder } from 'zonewire/orders';

declare module 'zonewire' {
  interface Channels {
    news: { type: 'news'; offset: number; title: string };
  }
}

const client = connect();
client.subscribe('news:local').on('entry', ({ title }) => title.length);
client.subscribe('event:ticker:binance:*').on('entry', (entry) => entry.type === 'ticker' && entry.data.symbol.length);
event(client, 'trade', { exchange: 'binance' }).on('entry', (entry) => {
  if (entry.type === 'trade') return entry.data.side?.length;
  // @ts-expect-error: trades alone come there
  return entry.type === 'ticker';
});

const zone = client.zone<{ market: string }>('pjm');
zone.on('entry', (entry, { epoch }) => {
  if (entry.type === 'price_update') return [entry.market.length, entry.price?.toFixed(), epoch];
  // @ts-expect-error: a removal of all keys has none
  return entry.key;
});
zone.latest().get('WESTERN HUB')?.market.length;
// @ts-expect-error: there is no such event
zone.on('entries', () => {});
// @ts-expect-error: of orders only
zone.on('entry', ({ type }) => type === 'confirmed');

export const loop = async () => {
  for await (const update of client.order('x')) {
    if (update.type === 'failed') update.error.code.length;
    else if (update.type === 'gap') (update satisfies Gap).missed?.toFixed();
  }
};
export const placed = placeOrder(client, {}).then(({ txHash, progress }) => [txHash, progress]);
export type Exported = [PriceUpdate, SubscriptionError];
