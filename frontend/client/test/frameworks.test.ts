import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Window } from 'happy-dom';
import { createElement, StrictMode, type ReactNode } from 'react';
import { effectScope, ref, watchEffect } from 'vue';

import * as react from 'zonewire/react';
import * as vue from 'zonewire/vue';
import { price, setUp, settle } from './support/fake.js';
import { until } from './support/real.js';

const window = new Window();
before(() => {
  Object.assign(globalThis, { window, document: window.document, ...('navigator' in globalThis ? {} : { navigator: window.navigator }) });
});
after(() => {
  for (const name of ['window', 'document', 'navigator']) delete (globalThis as Record<string, unknown>)[name];
  window.close();
});

const greeted = async () => {
  const set = setUp();
  await settle();
  set.gateway.subscribes();
  set.gateway.socket.greet();
  return set;
};

/** Renders in a page, and gives what it shows. */
const render = async (element: ReactNode) => {
  const { createRoot } = await import('react-dom/client');
  const place = window.document.createElement('div');
  const root = createRoot(place as never);
  root.render(element);
  return { root, text: () => place.textContent };
};

test('React: a zone is shown as long as a component is there, and components share it', async () => {
  const { gateway, client } = await greeted();
  const Price = ({ zone }: { zone: string | null }) => {
    const { prices, status } = react.useZone(client, zone);
    return `${status} ${[...prices.values()].map(({ price }) => price)};`;
  };
  const Connection = () => react.useStatus(client).state;
  const page = (zone: string | null) => createElement(StrictMode, null, [zone, zone].map((of, key) => createElement(Price, { key, zone: of })), createElement(Connection));
  const { root, text } = await render(page('pjm'));
  await until(() => text() === 'live ;live ;open', () => text());
  assert.equal(gateway.socket.of('subscribe').length, 1);
  for (let n = 1; n <= 50; n++) gateway.socket.say(price(n));
  await until(() => text() === 'live 50;live 50;open', () => text());

  root.render(page('ercot'));
  await until(() => text() === 'live ;live ;open', () => text());
  await until(() => !client.subscriptions.has('zone:pjm'), 'left');
  root.render(page(null));
  await until(() => text() === 'waiting ;waiting ;open', () => text());
  await until(() => client.subscriptions.size === 0, 'left');
  gateway.socket.drop(4500);
  await until(() => text()!.endsWith('failed'), () => text());
  root.unmount();
  client.close();
});

test('React: a subscription of the program is used, and left as it is', async () => {
  const { gateway, client } = await greeted();
  const sub = client.zone('pjm');
  await settle();
  gateway.socket.say(price(7));
  const Price = () => `${react.useZone(client, 'pjm').prices.get('WESTERN HUB')?.price}`;
  const { root, text } = await render(createElement(Price));
  await until(() => text() === '7', () => text());
  root.unmount();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(sub.status, 'live');
  client.close();
});

test('React: what the gateway refuses is shown, and tried anew by who comes later', async () => {
  const { gateway, client } = await greeted();
  gateway.answer = ({ type, id }, socket) =>
    type === 'subscribe' && socket.say({ type: 'error', id, code: 'forbidden', temporary: false, message: 'no' });
  const Price = () => {
    const { status, end } = react.useZone(client, 'secret');
    return `${status} ${end?.code}`;
  };
  const { root, text } = await render(createElement(Price));
  await until(() => text() === 'ended forbidden', () => text());
  root.unmount();
  gateway.subscribes();
  const again = await render(createElement(Price));
  await until(() => again.text() === 'live undefined', () => again.text());
  again.root.unmount();
  client.close();
});

test('React: an order is shown with its updates', async () => {
  const { gateway, client } = await greeted();
  const orderId = 'FE1C3314-8FC0-4C94-B141-DAD534CA416E';
  const Order = () => {
    const { updates, last, gap } = react.useOrder(client, orderId);
    return `${updates.length} ${last?.type} ${gap?.missed}`;
  };
  const { root, text } = await render(createElement(Order));
  await until(() => client.subscriptions.size, 'subscribed');
  await settle();
  const channel = `order:${orderId.toLowerCase()}`;
  for (const [index, type] of ['routing', 'building'].entries())
    gateway.socket.say({ type, channel, orderId, offset: index + 1, id: `g-${index}`, timestamp: '2026-11-21T03:40:47.388Z', progress: 10 });
  gateway.socket.say({ type: 'resync', channel, old_epoch: 'e1', epoch: 'e1', offset: 4, recovered: false, gap: 2 });
  await until(() => text() === '2 building 2', () => text());
  root.unmount();
  client.close();
});

test('Vue: a zone is shown as long as its scope is there, and another one when the name changes', async () => {
  const { gateway, client } = await greeted();
  const zone = ref<string | null>('pjm');
  const shown: string[] = [];
  const scope = effectScope();
  scope.run(() => {
    const view = vue.useZone<{ unit: string }>(client, zone);
    const status = vue.useStatus(client);
    watchEffect(() => shown.push(`${status.value.state} ${view.value.status} ${[...view.value.prices.values()].map(({ price, unit }) => `${price}${unit}`)}`));
  });
  const last = (what: string) => until(() => shown.at(-1) === what, () => `${what}: ${shown}`);
  await last('open live ');
  gateway.socket.say(price(1, { unit: '$' }));
  await last('open live 1$');
  zone.value = 'ercot';
  await last('open live ');
  await until(() => [...client.subscriptions.keys()].join() === 'zone:ercot', 'only the other one');
  zone.value = null;
  await last('open waiting ');
  zone.value = 'ercot';
  await last('open live ');
  scope.stop();
  await until(() => client.subscriptions.size === 0, 'left');
  client.close();
});

test('Vue: an order is shown with its updates', async () => {
  const { gateway, client } = await greeted();
  const orderId = 'fe1c3314-8fc0-4c94-b141-dad534ca416e';
  const scope = effectScope();
  const view = scope.run(() => vue.useOrder(client, orderId))!;
  await settle();
  gateway.socket.say({ type: 'routing', channel: `order:${orderId}`, orderId, offset: 1, id: 'g-1', timestamp: '2026-11-21T03:40:47.388Z', progress: 10 });
  await until(() => view.value.last?.type === 'routing', () => JSON.stringify(view.value));
  scope.stop();
  client.close();
});
