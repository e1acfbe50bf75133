// The views of events and registries, and the nodes of the fleet, in a real browser with real
// gateways.
import assert from 'node:assert/strict';
import { fits, isClean, says, shot } from './looks.mjs';
import { Exchange, Gateway, Redis, tab, until } from './support.mjs';

const DEPTH = 15;
/** The book as shown: bids from the best down, then asks from the best up. */
async function bookOf(page) {
  return page.locator('table.book').evaluate((table) => {
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent));
    const side = (price, size) => rows.filter((row) => row[price] !== '').map((row) => `${row[price]}x${row[size]}`);
    return { sequence: Number(table.dataset.sequence), shown: [...side(1, 0), ...side(2, 3)].map((it) => it.replaceAll(',', '')) };
  });
}
/**
 * The same from the entries of a log, by the protocol's rule, at a given change; undefined if the log
 * does not cover it.
 */
function bookAt(entries, sequence) {
  let at;
  const sides = { bids: new Map(), asks: new Map() };
  for (const { data } of entries) {
    if (at === sequence) break;
    if (data.kind === 'snapshot') for (const side of Object.values(sides)) side.clear();
    else if (data.previousSequence !== at) continue;
    for (const [name, side] of Object.entries(sides)) for (const [price, size] of data[name]) (Number(size) === 0 ? side.delete(Number(price)) : side.set(Number(price), size));
    at = data.sequence;
  }
  if (at !== sequence) return undefined;
  const best = (side, sign) => [...side].sort(([a], [b]) => sign * (a - b)).slice(0, DEPTH).map(([price, size]) => `${price.toFixed(2)}x${Number(size).toFixed(5)}`);
  return [...best(sides.bids, -1), ...best(sides.asks, 1)];
}

export const tests = {
  async 'markets: the tape moves, the book is the gateway’s, an exchange that goes is told'() {
    const exchange = await Exchange.start('--step-ms', '50');
    const gateway = await Gateway.start('serve', '--storage', 'memory', ...exchange.settings);
    const page = await tab();
    await page.goto(`${gateway.url}#/events`);
    await until(() => page.url().endsWith('#/events/binance/BTC-USDT'), 'the first market');
    const tape = page.getByRole('region', { name: 'Tape of trades' });
    const newest = () => tape.locator('tbody tr').first().innerText();
    await until(async () => (await tape.locator('tbody tr').count()) > 5, 'trades');
    const was = await newest();
    await until(async () => (await newest()) !== was, 'a tape that moves');
    await until(async () => /1\d\d,\d\d\d\.\d\d/.test(await page.getByRole('row', { name: /BTC-USDT\s*binance/ }).innerText()), 'a ticker');
    await page.getByText(/connected since \d\d:\d\d:\d\d/).waitFor();
    await page.getByRole('img', { name: /^Candles of 1m\. From .* open 1\d\d,/ }).waitFor();
    await isClean(page, 'markets');
    await shot(page, 'events');
    // The book that is shown equals the one from the gateway's log, at the same change.
    for (let i = 0; i < 3; i += 1) await until(async () => {
      const { sequence, shown } = await bookOf(page);
      return bookAt((await gateway.get('api/events/orderbook/history?limit=1000')).entries, sequence)?.join() === shown.join();
    }, 'the book of the gateway');
    // It pauses when told to, and continues.
    await page.getByRole('button', { name: 'Pause' }).click();
    const still = await newest();
    await page.getByText(/Paused; [2-9]\d* newer lines/).waitFor();
    assert.equal(await newest(), still);
    await isClean(page, 'a tape that stands still');
    await page.getByRole('button', { name: 'Go on' }).click();
    await until(async () => (await newest()) !== still, 'a tape that goes on');
    // All markets; a symbol may contain a slash, and the number shown is limited.
    await page.getByRole('button', { name: 'All', exact: true }).click();
    await gateway.tell('trade', [{ exchange: 'desk', symbol: 'EUR/USD', price: '1.0875', size: 3, side: 'buy' }]);
    await tape.getByRole('row', { name: /EUR\/USD desk ▲ 1\.0875 3/ }).waitFor();
    await page.getByRole('row', { name: /^EUR\/USD\s*desk/ }).waitFor();
    await shot(page, 'events-all');
    await page.getByRole('button', { name: 'BTC-USDT', exact: true }).click();
    // The exchange goes away, and comes back.
    await exchange.end();
    await page.locator('.exchanges').getByText(/binance\s*(disconnected|reconnecting) since \d\d:\d\d:\d\d/).waitFor();
    await page.locator('.bookpanel').getByText('Not connected').waitFor();
    await until(async () => /binance is (re|dis)connect/.test(await page.locator('[role=status]').innerText()), 'it is said');
    await shot(page, 'exchange-away');
    await isClean(page, 'an exchange that is away');
    await exchange.start();
    await page.locator('.exchanges').getByText(/binance\s*connected since/).waitFor({ timeout: 30_000 });
    const at = (await bookOf(page)).sequence;
    await until(async () => (await bookOf(page)).sequence !== at, 'a book that goes on');
    await page.getByText('Not connected').waitFor({ state: 'detached' });
    await page.context().close();
    for (const [name, look] of [['dark', { dark: true }], ['small', { width: 375, height: 812 }], ['small-dark', { width: 375, height: 812, dark: true, reducedMotion: 'reduce' }], ['middle', { width: 800, height: 900 }], ['large', { width: 3840, height: 2160 }]]) {
      const other = await tab(look);
      await other.goto(`${gateway.url}#/events/binance/BTC-USDT`);
      await until(async () => (await other.locator('.tape tbody tr').count()) > 2 && (await other.locator('table.book').getAttribute('data-sequence')) !== null, 'a tape and a book');
      await fits(other, name);
      await shot(other, `${name}-events`, { fullPage: true });
      await isClean(other, `${name} events`);
      await other.context().close();
    }
    await gateway.end('SIGTERM');
    await exchange.end();
  },

  async 'a book with a hole, a thousand trades a second, and lines that are bounded'() {
    const gateway = await Gateway.start('serve', '--storage', 'memory');
    const book = (kind, sequence, bids, asks, more = {}) => gateway.tell('orderbook', { exchange: 'desk', symbol: 'EUR/USD', kind, sequence, bids, asks, ...more });
    await book('snapshot', 10, [['1.0874', '5'], ['1.0870', '2']], [['1.0876', '4']]);
    await book('delta', 11, [['1.0872', '7']], [['1.0876', '0'], ['1.0877', '1']], { previousSequence: 10 });
    const page = await tab();
    await page.goto(`${gateway.url}#/events/desk/EUR/USD`);
    const shows = (sequence, expected) => until(async () => {
      const it = await bookOf(page);
      return it.sequence === sequence && it.shown.join() === expected.join();
    }, async () => `${sequence} ${expected}; there is ${JSON.stringify(await bookOf(page))}`);
    // Entries after the last whole book are in the log.
    await shows(11, ['1.0874x5', '1.0872x7', '1.0870x2', '1.0877x1']);
    await book('delta', 13, [['1.0873', '1']], [], { previousSequence: 12 });
    await page.getByText('A change is missing').waitFor();
    await shows(11, ['1.0874x5', '1.0872x7', '1.0870x2', '1.0877x1']);
    await isClean(page, 'a book with a hole');
    await book('snapshot', 13, [['1.0873', '1']], [['1.0877', '1']]);
    await shows(13, ['1.0873x1', '1.0877x1']);
    await page.getByText('A change is missing').waitFor({ state: 'detached' });
    await book('delta', 14, [], [['1.0878', '2']], { previousSequence: 13 });
    await shows(14, ['1.0873x1', '1.0877x1', '1.0878x2']);
    await page.getByText('No trades yet: they appear as they come.').waitFor();
    // Each frame is drawn once, however many trades arrived, and no line is superfluous.
    await page.evaluate(() => {
      globalThis.lines = 0;
      globalThis.most = 0;
      new MutationObserver((changes) => {
        globalThis.lines += 1;
        globalThis.most = Math.max(globalThis.most, changes.length);
      }).observe(document.querySelector('.tape tbody'), { childList: true });
      globalThis.frames = 0;
      const count = () => { globalThis.frames += 1; requestAnimationFrame(count); };
      requestAnimationFrame(count);
    });
    let number = 0;
    for (let i = 0; i < 30; i += 1) await gateway.tell('trade', Array.from({ length: 100 }, () => ({ exchange: 'desk', symbol: 'EUR/USD', price: '1.0875', size: number, tradeId: number++, side: number % 2 ? 'buy' : 'sell' })));
    await until(async () => (await page.locator('.tape tbody tr').first().innerText()).includes('2,999'), 'the last trade');
    await page.getByRole('button', { name: 'Pause' }).click();
    await until(async () => (await page.locator('.tape tbody tr').count()) === 200, 'all lines, once it stands still');
    const sizes = await page.locator('.tape tbody td.size').allInnerTexts();
    assert.deepEqual(sizes, Array.from({ length: 200 }, (_, i) => (2999 - i).toLocaleString('en')), 'the newest 200, in their order');
    const { lines, frames } = await page.evaluate(() => ({ lines: globalThis.lines, frames: globalThis.frames }));
    assert.ok(lines <= frames + 1, `${lines} times drawn in ${frames} frames`);
    await page.getByText('the newest 200 of 3,000').waitFor();
    await isClean(page, 'a full tape');
    await page.getByRole('button', { name: 'Go on' }).click();
    // What was only in the gateway's memory is lost with it, and the page says where.
    await gateway.end('SIGKILL');
    await says(page, /as of \d\d:\d\d:\d\d, and is getting older/);
    await gateway.start();
    await page.getByText('A change is missing').waitFor({ timeout: 30_000 });
    await page.getByText('Trades may be missing here').waitFor();
    await shows(14, ['1.0873x1', '1.0877x1', '1.0878x2']);
    await book('snapshot', 1, [['1.0880', '1']], []);
    await shows(1, ['1.0880x1']);
    await page.getByText('A change is missing').waitFor({ state: 'detached' });
    await isClean(page, 'after a restart');
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'registries: records come, change and go, and an outage of Redis is said'() {
    const redis = await Redis.start();
    const gateway = await Gateway.start('serve', '--redis-url', redis.url);
    const page = await tab();
    await page.goto(`${gateway.url}#/registries`);
    await page.getByText('No provider is registered.').waitFor();
    await isClean(page, 'no records');
    const row = (name) => page.getByRole('row', { name });
    await gateway.send('PUT', 'api/providers/7', { userId: 7, status: 'online', location: 'Berlin', paymentMethods: ['sepa', 'wire'] });
    await gateway.send('PUT', 'api/providers/alice', { userId: 'alice', status: 'online', rating: 4.5 });
    await row(/^7 ● online Berlin/).waitFor();
    await row(/^alice ● online/).getByText('4.5').waitFor();
    await gateway.send('PATCH', 'api/providers/7', { status: 'offline' });
    await row(/^7 ○ offline/).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('WIRE');
    await row(/^alice/).waitFor({ state: 'detached' });
    await page.getByText('1 of 2 providers').waitFor();
    await page.keyboard.type(' none');
    await page.getByText('Nothing in 2 records fits “WIRE none”.').waitFor();
    await page.getByRole('searchbox').fill('');
    await shot(page, 'registries');
    await isClean(page, 'providers');
    // While Redis is away the page continues, and says what is unknown.
    await redis.end();
    await page.getByText(/Degraded since \d\d:\d\d:\d\d: what other gateways write of providers is not known here until Redis is back\./).waitFor();
    await gateway.send('DELETE', 'api/providers/7');
    await row(/^7/).waitFor({ state: 'detached' });
    await gateway.send('PUT', 'api/providers/bob', { userId: 'bob', status: 'online' });
    await row(/^bob ● online/).waitFor();
    await shot(page, 'registries-degraded');
    await isClean(page, 'registries while Redis is away');
    await redis.start();
    await until(async () => (await page.locator('.asof').count()) === 0, 'no more of an outage', 30_000);
    await row(/^bob ● online/).waitFor();
    // The other registry, with many records: one page at a time.
    await page.getByRole('link', { name: 'Active orders' }).click();
    await page.getByText('No order is under way.').waitFor();
    for (let i = 0; i < 60; i += 1) await gateway.send('PUT', `api/active-orders/order-${i}`, { orderId: `order-${i}`, state: 'matched', userId: 'alice' });
    await page.getByText('60 active orders').waitFor();
    assert.equal(await page.locator('main tbody tr').count(), 50);
    await page.getByRole('button', { name: 'Next' }).click();
    await row(/^order-59 matched alice/).waitFor();
    await page.context().close();
    for (const [name, look] of [['dark', { dark: true }], ['small', { width: 375, height: 812 }], ['small-dark', { width: 375, height: 812, dark: true }]]) {
      const other = await tab(look);
      for (const view of ['registries/providers', 'registries/active-orders']) {
        await other.goto(`${gateway.url}#/${view}`);
        await other.locator('main tbody tr').first().waitFor();
        await fits(other, `${name} ${view}`);
        await shot(other, `${name}-${view.replace(/\W+/g, '-')}`);
        await isClean(other, `${name} ${view}`);
      }
      await other.context().close();
    }
    await gateway.end('SIGTERM');
    await redis.end();
  },

  async 'nodes of the fleet'() {
    const redis = await Redis.start();
    const gateways = [await Gateway.start('serve', '--redis-url', redis.url), await Gateway.start('serve', '--redis-url', redis.url)];
    if (!Array.isArray((await gateways[0].get('ws/stats?scope=fleet')).nodes)) {
      const page = await tab();
      await page.goto(`${gateways[0].url}#/gateway/nodes`);
      await page.getByText('This gateway shows only itself').waitFor();
      await isClean(page, 'no fleet');
      await page.context().close();
      for (const it of gateways) await it.end('SIGTERM');
      await redis.end();
      return 'the gateway has no ws/stats?scope=fleet';
    }
    for (const [name, look] of [['light', {}], ['dark', { dark: true }], ['small', { width: 375, height: 812 }]]) {
      const page = await tab(look);
      await page.goto(`${gateways[0].url}#/gateway/nodes`);
      const list = page.getByRole('region', { name: 'List of nodes' });
      await until(async () => (await list.locator('tbody tr').count()) === 2, 'two nodes', 30_000);
      const [here, other] = await Promise.all(gateways.map(async (it) => (await it.get('ws/stats?connections=0')).node.slice(0, 8)));
      assert.match(await list.getByRole('row', { name: here }).innerText(), /this one/);
      await list.getByRole('row', { name: other }).getByText('serving').waitFor();
      // This page's own connection is counted.
      await until(async () => Number(await list.getByRole('row', { name: here }).locator('td').nth(1).innerText()) >= 1, 'a connection', 30_000);
      await fits(page, `${name} nodes`);
      await shot(page, `${name}-nodes`);
      await isClean(page, `${name} nodes`);
      if (name === 'small') {
        await redis.end();
        await page.locator('main').getByText(/This node only/).waitFor({ timeout: 30_000 });
        await isClean(page, 'nodes while Redis is away');
      }
      await page.context().close();
    }
    for (const it of gateways) await it.end('SIGTERM');
    await redis.end();
    return undefined;
  },
};
