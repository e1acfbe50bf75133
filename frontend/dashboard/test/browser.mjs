// The page in a real browser, with real gateways: what it shows, says and does, with and without faults.
//   node test/browser.mjs [words of names of tests]
// ZONEWIRE_BIN is the gateway; ZONEWIRE_TEST_SHOTS a folder for pictures of the states. ZONEWIRE_TEST_DIST=../dist tries a
// page that the gateway was not built with yet.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { banner, isClean, isLive, says, shot, state } from './looks.mjs';
import { tests as markets } from './markets.mjs';
import { Access, blank, freePort, Gateway, has, nginx, over, publishing, Redis, slowReader, tab, until } from './support.mjs';

const rows = (page) => page.locator('table.board tbody tr[aria-rowindex]');
const price = (page, key) => page.locator('table.board tr[aria-rowindex]', { hasText: key }).first().locator('td.price').innerText();
/** Views that everybody has; they say what a token does not permit. */
const FOR_ALL = ['Prices', 'Events', 'Registries'];
const toPrices = (page, url, zones = 'pjm') => page.goto(`${url}#/prices/${zones}`);

const tests = {
  async 'first paint, live prices, all views, both themes, large and small'() {
    const gateway = await Gateway.start('demo', '--storage', 'memory', '--interval-ms', '250', '--set', 'orders.paper.failure_rate=0');
    const page = await tab();
    await page.goto(gateway.url);
    await isLive(page);
    await until(() => /#\/prices\/\w+$/.test(page.url()), 'the first zone');
    await toPrices(page, gateway.url);
    await until(async () => (await rows(page).count()) >= 8, 'the hubs of pjm');
    const first = await price(page, 'WESTERN HUB');
    await until(async () => (await price(page, 'WESTERN HUB')) !== first, 'a price that changes');
    await page.getByText('Simulated').first().waitFor();
    // The board shows what the gateway has.
    await until(async () => {
      const { entries } = await gateway.get('api/zones/pjm/latest');
      const entry = entries.find((it) => it.key === 'OHIO HUB');
      return (await price(page, 'OHIO HUB')).replace('−', '-') === entry.price.toFixed(2);
    }, 'the latest price on the board');
    // The chart describes in words what it shows.
    await until(async () => /now −?[\d.,]+, lowest/.test(await page.locator('#chart').getAttribute('aria-label')), 'a chart with prices');
    await shot(page, 'prices');
    await isClean(page, 'prices');
    await page.keyboard.press('?');
    await page.getByRole('heading', { name: 'Keys and appearance' }).waitFor();
    await isClean(page, 'help');
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Several…' }).click();
    await page.getByRole('checkbox', { name: 'ercot' }).check();
    await isClean(page, 'zones to choose from');
    await page.keyboard.press('Escape');
    await until(async () => (await page.locator('table.board td.zone').allInnerTexts()).includes('ercot'), 'two zones on the board');
    // With the keyboard alone: to the board, down, pinned, to the chart.
    await page.keyboard.press('b');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Space');
    const pinned = await page.locator('table.board tr.pinned .key').innerText();
    assert.equal(await rows(page).first().locator('.key').innerText(), pinned, 'a pinned row is the first one');
    assert.match(decodeURIComponent(page.url()), new RegExp(`key=\\w+/${pinned}`), 'the address leads to it');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'chart');
    // A filter.
    await page.keyboard.press('/');
    await page.keyboard.type('western');
    await until(async () => (await rows(page).count()) <= 2, 'filtered rows');
    await page.keyboard.press('Escape');
    // After a reload the board is there at once, complete.
    await page.reload();
    await until(async () => (await rows(page).count()) >= 15, 'a snapshot after a reload');
    for (const [view, heading] of [['gateway', 'Nothing accepted is lost'], ['gateway/connections', 'Connections by zone'], ['gateway/dead-letters', 'Dead letters'], ['gateway/settings', 'Settings'], ['orders', 'Orders'], ['nowhere', 'There is nothing here']]) {
      await page.goto(`${gateway.url}#/${view}`);
      await page.getByRole('heading', { name: heading, exact: true }).waitFor();
      if (view === 'gateway') await until(async () => /\/s/.test(await page.locator('.kpi b').nth(1).innerText()), 'rates');
      if (view === 'gateway/settings') {
        await page.getByRole('searchbox').fill('storage.backend');
        await page.getByRole('row', { name: 'storage.backend' }).getByText('memory').waitFor();
      }
      await shot(page, view.replace(/\W+/g, '-'));
      await isClean(page, view);
    }
    await page.context().close();
    for (const [name, look] of [['dark', { dark: true }], ['small', { width: 375, height: 812 }], ['small-dark', { width: 375, height: 812, dark: true, reducedMotion: 'reduce' }], ['large', { width: 3840, height: 2160 }]]) {
      const other = await tab(look);
      for (const view of ['prices/pjm', 'gateway', 'orders']) {
        await other.goto(`${gateway.url}#/${view}`);
        await isLive(other);
        if (view === 'prices/pjm') await until(async () => (await rows(other).count()) >= 8, 'rows');
        else await other.locator('h1').first().waitFor();
        const wider = await other.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wider <= 0, `${name} ${view} is ${wider} px too wide`);
        await shot(other, `${name}-${view.replace(/\W+/g, '-')}`);
        await isClean(other, `${name} ${view}`);
      }
      await other.context().close();
    }
    await gateway.end('SIGTERM');
  },

  async 'sorted by price, a thousand keys, two hundred prices a second'() {
    const gateway = await Gateway.start('serve', '--storage', 'memory');
    const feed = await publishing(gateway, 'nodes', 1000, 200);
    const page = await tab();
    await page.goto(`${gateway.url}#/prices/nodes?sort=-price`);
    await until(async () => (await page.locator('.foot').first().innerText()).includes('1,000 keys'), 'a thousand keys');
    const drawn = await rows(page).count();
    assert.ok(drawn < 60, `only what is seen is drawn: ${drawn} rows`);
    const isSorted = () => page.evaluate(() => {
      const prices = [...document.querySelectorAll('table.board td.price')].map((it) => Number(it.textContent.replace('−', '-')));
      return prices.length > 10 && prices.every((it, i) => i === 0 || it <= prices[i - 1]);
    });
    // Rows are re-sorted once a second; a price may have moved since.
    for (let i = 0; i < 3; i += 1) {
      await until(isSorted, 'rows in the order of their prices');
      const was = await page.locator('table.board td.price').allInnerTexts();
      await until(async () => `${await page.locator('table.board td.price').allInnerTexts()}` !== `${was}`, 'other prices');
    }
    await page.getByRole('button', { name: 'Key', exact: true }).click();
    await until(async () => (await rows(page).first().locator('.key').innerText()) === 'NODE 00000', 'sorted by key');
    // To the end with the keyboard: the last rows are there.
    await page.locator('table.board').focus();
    await page.keyboard.press('End');
    await until(async () => (await page.locator('table.board tr[aria-selected="true"] .key').innerText()) === 'NODE 00999', 'the last key');
    const rate = await feed.stop();
    assert.ok(rate > 150, `${rate} prices a second`);
    await isClean(page, 'a thousand keys');
    // Removed in a separate place, with a question.
    await page.getByRole('button', { name: 'Remove…' }).click();
    await page.getByRole('heading', { name: 'Remove NODE 00999?' }).waitFor();
    await isClean(page, 'the question before a removal');
    await page.getByRole('button', { name: 'Remove the key' }).click();
    await until(async () => (await page.locator('.foot').first().innerText()).includes('999 keys'), 'a key less');
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'what the first paint does not need comes after it'() {
    const gateway = await Gateway.start('demo', '--storage', 'memory', '--interval-ms', '250');
    const page = await tab();
    // Without the chart and the ticket, prices are shown nevertheless, and the page says so.
    await page.route(/assets\/(chart|ticket)-/, (route) => route.abort());
    await toPrices(page, gateway.url);
    await until(async () => (await rows(page).count()) >= 8, 'rows');
    await until(async () => (await page.getByText('This part of the page could not be read').count()) === 2, 'what is missing says so');
    const first = await price(page, 'WESTERN HUB');
    await until(async () => (await price(page, 'WESTERN HUB')) !== first, 'prices go on');
    await shot(page, 'without-chart');
    await isClean(page, 'without the chart');
    await page.unroute(/assets/);
    await page.unrouteAll();
    await page.getByRole('button', { name: 'Load the page again' }).first().click();
    await page.locator('#chart').waitFor();
    await page.getByRole('button', { name: 'Place order' }).waitFor();
    assert.deepEqual(page.faults, []);
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'connections page by page, and the story of one'() {
    const gateway = await Gateway.start('demo', '--storage', 'memory', '--interval-ms', '250', '--set', 'connections.per_address_max=200');
    // Sixty connections to one zone and three to another, an event stream, and a client that reads nothing.
    const crowd = await tab();
    await blank(crowd, gateway);
    await crowd.evaluate(async () => {
      const open = (zone) => new Promise((resolve) => { const it = new WebSocket(`${location.origin.replace('http', 'ws')}/ws/market/${zone}`); it.onmessage = () => resolve(it); });
      globalThis.sockets = { pjm: await Promise.all(Array.from({ length: 60 }, () => open('pjm'))), ercot: await Promise.all(Array.from({ length: 3 }, () => open('ercot'))) };
    });
    const stream = new AbortController();
    const events = await fetch(`${gateway.url}sse?channels=zone:caiso`, { signal: stream.signal });
    assert.equal(events.status, 200);
    events.body.pipeTo(new WritableStream()).catch(() => undefined);
    const page = await tab();
    let asked = 0;
    page.on('request', (request) => { if (/ws\/stats/.test(request.url())) asked += 1; });
    await page.goto(`${gateway.url}#/gateway/connections`);
    const list = page.getByRole('region', { name: 'Connections', exact: true });
    const links = list.locator('tbody th a');
    const ids = () => links.evaluateAll((found) => found.map((it) => it.hash.split('/').at(-1)));
    const next = page.getByRole('button', { name: 'Next' });
    await until(async () => (await links.count()) === 25, 'a page of 25');
    const began = Date.now();
    asked = 0;
    await until(() => Date.now() - began > 4200, 'four seconds');
    assert.ok(asked >= 3 && asked <= 5, `asked once a second: ${asked} times in 4.2 s`);
    await shot(page, 'connections');
    await isClean(page, 'a page of connections');
    // All of them, each once, in order.
    const { connection_list: all } = await gateway.get('ws/stats?connections=1000');
    const met = [...(await ids())];
    for (;;) {
      if (!(await next.count()) || await next.isDisabled()) break;
      await next.click();
      await until(async () => (await ids()).length > 0 && (await ids())[0] !== met.at(-25) && !met.includes((await ids())[0]), 'another page');
      met.push(...(await ids()));
    }
    assert.deepEqual(met, all.map((it) => it.connection_id));
    // Of one zone.
    await page.getByRole('link', { name: /^\d+ connections of ercot, one by one/ }).click();
    await until(async () => (await links.count()) === 3, 'three of ercot');
    await isClean(page, 'the connections of one zone');
    await page.getByRole('button', { name: /^Of all zones/ }).click();
    // By the prefix of its id, and on to its details.
    const [wanted] = (await gateway.get('ws/stats?connections=1000&zone=ercot')).connection_list;
    const search = page.getByLabel('Look for a connection by how its id begins');
    await search.fill(wanted.connection_id.slice(0, 9).toUpperCase());
    await until(async () => `${await ids()}` === wanted.connection_id, 'the one of that id');
    await search.fill('no id');
    await page.getByText('No open connection has an id that begins so.').waitFor();
    await isClean(page, 'no connection of that id');
    await search.fill(wanted.connection_id);
    await until(async () => `${await ids()}` === wanted.connection_id, 'the one of that id');
    await search.press('Enter');
    await page.getByRole('heading', { name: `Connection ${wanted.connection_id.slice(0, 8)}` }).waitFor();
    assert.ok(page.url().endsWith(`#/gateway/connections/${wanted.connection_id}`), page.url());
    const verdict = () => page.locator('.verdict').innerText();
    const who = () => page.locator('.who').innerText();
    await until(async () => /Keeps up with what is sent; nothing waits for it/.test(await verdict()), verdict);
    assert.match(await who(), /Client\s+no login is required\s+From\s+127\.0\.0\.1\s+By\s+a WebSocket/);
    const follows = page.getByRole('row', { name: /^ercot/ });
    await until(async () => /up to date|\d+ entr(y|ies) behind/.test(await follows.innerText()), () => follows.innerText());
    const sentUpTo = async () => Number((await follows.locator('td').nth(1).innerText()).replaceAll(',', ''));
    const was = await sentUpTo();
    await until(async () => (await sentUpTo()) > was, 'a position that goes on');
    await shot(page, 'connection');
    await isClean(page, 'the story of a connection');
    // Its changes while the page is open, and its end.
    await crowd.evaluate(() => { for (const it of sockets.ercot) it.send(JSON.stringify({ type: 'subscribe', channels: ['zone:nyiso'] })); });
    const lived = page.locator('.happenings');
    await until(async () => /follows\s+It follows nyiso from now on\./.test(await lived.innerText()), () => lived.innerText());
    await page.getByRole('row', { name: /^nyiso/ }).waitFor();
    await crowd.evaluate(() => { for (const it of sockets.ercot) it.onclose = ({ code }) => { it.code = code; }; });
    await page.getByRole('button', { name: 'Disconnect…' }).click();
    await page.getByRole('button', { name: 'End it' }).waitFor();
    await isClean(page, 'the question before a connection is closed');
    await shot(page, 'connection-question');
    await page.getByRole('button', { name: 'End it' }).click();
    await page.locator('.notice').getByText(`Connection ${wanted.connection_id.slice(0, 8)} is closed.`).waitFor();
    await until(() => crowd.evaluate(() => `${sockets.ercot.map((it) => it.code ?? 0).sort()}` === '0,0,4500'), 'the one, and no other, closed for good');
    await crowd.evaluate(() => { for (const it of sockets.ercot) it.close(); });
    await until(async () => /It has ended, or another gateway has it: not open here since/.test(await verdict()), verdict);
    await page.getByText('It is not open here any more.').waitFor();
    await shot(page, 'connection-ended');
    await isClean(page, 'a connection that ended');
    await page.reload();
    await page.getByText('No connection of this id is open here.').waitFor();
    await isClean(page, 'a connection that is not there');
    // An event stream is labelled as one, and the page recognizes itself.
    const stories = (await gateway.get('ws/stats?connections=1000')).connection_list;
    await page.goto(`${gateway.url}#/gateway/connections/${stories.find((it) => it.transport === 'events').connection_id}`);
    await until(async () => /By\s+a stream of events/.test(await who()), who);
    await page.getByRole('link', { name: 'All connections' }).click();
    await page.locator('.chip', { hasText: 'this page' }).or(next).first().waitFor();
    // A slow client is found among all of them.
    await page.getByRole('button', { name: 'Slow or silent' }).click();
    await page.getByText('Every client keeps up.').waitFor();
    await isClean(page, 'nobody is slow');
    const slow = await slowReader(gateway, '/ws/market/bulk');
    const load = Array.from({ length: 100 }, (_, i) => ({ key: `K ${i}`, price: i, note: 'x'.repeat(4000) }));
    let isOver = false;
    const pressing = (async () => { while (!isOver) { await gateway.publish('bulk', load.map((it) => ({ ...it, price: Math.round(1e4 * Math.random()) / 100 }))); await new Promise((later) => setTimeout(later, 20)); } })();
    await until(async () => (await links.count()) === 1 && (await list.innerText()).includes('behind'), 'somebody who is behind', 30_000);
    await shot(page, 'connections-slow');
    await isClean(page, 'somebody is slow');
    await links.first().click();
    await until(async () => /Does not keep up with what is sent.*; [\d,]+ messages? waits? for it/s.test(await verdict()), verdict);
    await until(async () => /[\d,]+ entr(y|ies) behind|up to date once it takes what waits/.test(await page.getByRole('row', { name: /^bulk/ }).innerText()), async () => `how far it is behind; ${await page.locator('main').innerText()}`);
    await shot(page, 'connection-slow');
    await isClean(page, 'the story of a slow reader');
    isOver = true;
    await pressing;
    await slow.end();
    for (const [name, look] of [['dark', { dark: true }], ['small', { width: 375, height: 812 }], ['small-dark', { width: 375, height: 812, dark: true }]]) {
      const other = await tab(look);
      for (const view of ['gateway/connections', `gateway/connections/${stories[0].connection_id}`]) {
        await other.goto(`${gateway.url}#/${view}`);
        await other.locator('tbody th').first().waitFor();
        const wider = await other.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wider <= 0, `${name} ${view} is ${wider} px too wide`);
        await shot(other, `${name}-${view.split('/').length > 2 ? 'connection' : 'connections'}`, { fullPage: true });
        await isClean(other, `${name} ${view}`);
      }
      await other.context().close();
    }
    stream.abort();
    await crowd.context().close();
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'an order to confirmed, one to failed, and its dead letter again'() {
    const gateway = await Gateway.start('demo', '--storage', 'memory', '--set', 'orders.paper.failure_rate=0');
    const page = await tab();
    await toPrices(page, gateway.url);
    await isLive(page);
    await page.getByRole('button', { name: 'Place order' }).click();
    await page.locator('.story.confirmed').waitFor();
    await page.getByText('Paper, nothing is traded').waitFor();
    assert.equal(await page.locator('.story [role=progressbar]').getAttribute('aria-valuenow'), '100');
    await shot(page, 'order-confirmed');
    await isClean(page, 'a confirmed order');
    // An error is shown at the field concerned.
    await page.locator('[name=amount]').fill('-1');
    await page.getByRole('button', { name: 'Place order' }).click();
    await page.locator('#fault-amount').waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.name), 'amount');
    await isClean(page, 'an order with a fault');
    await page.goto(`${gateway.url}#/orders`);
    await page.locator('.listpanel tbody a').first().click();
    await until(async () => (await page.locator('.story tbody tr').count()) >= 6, 'the story of an order');
    await shot(page, 'order-story');
    await isClean(page, 'the story of an order');
    await gateway.end('SIGTERM');
    const other = await Gateway.start('demo', '--storage', 'memory', '--set', 'orders.paper.failure_rate=1', '--set', 'orders.attempts_max=1');
    await toPrices(page, other.url);
    await isLive(page);
    await page.getByRole('button', { name: 'Place order' }).click();
    await page.locator('.story.failed').waitFor();
    await shot(page, 'order-failed');
    await isClean(page, 'a failed order');
    await page.goto(`${other.url}#/gateway/dead-letters`);
    await page.getByRole('button', { name: /^Place again/ }).first().click();
    await Promise.race([page.waitForURL(/#\/orders\/[0-9a-f-]{36}/), page.getByRole('button', { name: 'Place it anyway' }).click()]);
    await page.waitForURL(/#\/orders\/[0-9a-f-]{36}/);
    await other.end('SIGTERM');
    // An order of another form: the ticket is built from its schema.
    const power = await Gateway.start('demo', '--storage', 'memory', '--set', `orders.schema=${join(import.meta.dirname, '../../../docs/examples/power/order.schema.json')}`, '--set', 'orders.paper.failure_rate=0');
    await page.goto(`${power.url}#/prices/pjm?key=pjm/OHIO%20HUB`);
    await page.getByRole('heading', { name: 'A power trade' }).waitFor();
    await page.locator('[name=side]').selectOption('buy');
    await page.locator('[name=quantity]').fill('50');
    await page.locator('[name=limit]').fill('95.5');
    await page.locator('[name="period.start"]').fill('2026-12-01T15:00:00');
    await page.getByRole('button', { name: 'Place order' }).click();
    await page.locator('[id="fault-period.end"]').waitFor();
    await shot(page, 'power');
    await isClean(page, 'an order of another form, with a fault');
    await page.locator('[name="period.end"]').fill('2026-12-01T16:00:00');
    await page.getByRole('button', { name: 'Place order' }).click();
    await page.locator('.story').waitFor();
    const { orders } = await power.get('api/orders?limit=1');
    assert.deepEqual([orders[0].order.hub, orders[0].order.quantity, orders[0].order.limit], ['OHIO HUB', 50, 95.5]);
    await page.context().close();
    await power.end('SIGTERM');
  },

  async 'the gateway is killed, and back; it hangs, and goes on'() {
    const gateway = await Gateway.start('demo', '--storage', 'memory', '--interval-ms', '250', '--set', 'connections.heartbeat_interval_s=1');
    const page = await tab();
    await toPrices(page, gateway.url);
    await until(async () => (await rows(page).count()) >= 8, 'rows');
    await gateway.end('SIGKILL');
    await says(page, /The connection was lost at .* What you see is as of .* Try 1 of 5 begins in \d s/s);
    await page.getByText('Not live').waitFor();
    await until(async () => (await page.locator('table.board td.age').first().innerText()).startsWith('stale '), 'what is stale says so');
    await until(async () => /The connection was lost/.test(await page.locator('p[role=status][aria-live]').innerText()), 'a sentence for screen readers');
    await shot(page, 'lost');
    await isClean(page, 'while the gateway is away');
    await gateway.start();
    // Unless it has done so by itself meanwhile.
    await page.getByRole('button', { name: 'Reconnect now' }).click({ timeout: 3000 }).catch(() => undefined);
    await isLive(page);
    assert.equal(await banner(page), '');
    const before = await price(page, 'WESTERN HUB');
    await until(async () => (await price(page, 'WESTERN HUB')) !== before, 'prices go on');
    gateway.signal('SIGSTOP');
    await says(page, /The gateway went silent/);
    gateway.signal('SIGCONT');
    await isLive(page);
    await page.goto(`${gateway.url}#/gateway`);
    await page.getByText('The gateway went silent.').waitFor();
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'Redis goes, and comes back'() {
    if (!has('redis-server')) return 'there is no redis-server';
    const redis = await Redis.start();
    const gateway = await Gateway.start('demo', '--redis-url', redis.url, '--interval-ms', '250');
    const page = await tab();
    await toPrices(page, gateway.url);
    await until(async () => (await rows(page).count()) >= 8, 'rows');
    assert.match(await state(page), /Redis/);
    await redis.end();
    await says(page, /Redis has been away since \d\d:\d\d:\d\d\. Prices of this gateway go on .* Nothing accepted is lost/s);
    assert.match(await state(page), /Degraded\s*in memory/);
    const before = await price(page, 'WESTERN HUB');
    await until(async () => (await price(page, 'WESTERN HUB')) !== before, 'prices go on from memory');
    await isClean(page, 'degraded');
    await page.getByRole('link', { name: 'Details' }).click();
    await page.locator('.verdict b.degraded').waitFor();
    await until(async () => Number((await page.locator('.facts dd').first().innerText()).replaceAll(',', '')) > 0, 'entries that wait for Redis');
    await shot(page, 'outage');
    await isClean(page, 'the promise while degraded');
    await redis.start();
    await until(async () => (await banner(page)) === '', 'no banner', 30_000);
    await page.locator('.verdict b.healthy').waitFor();
    await until(async () => (await page.locator('.happenings b').allInnerTexts()).includes('degraded'), 'the outage among what happened');
    await until(async () => (await page.locator('.facts dd').first().innerText()) === '0', 'nothing waits');
    await shot(page, 'after-outage');
    assert.match(await page.locator('.promise').innerText(), /0 lost/);
    await isClean(page, 'healthy again');
    // A page opened later gets it from the gateway.
    const later = await tab();
    await later.goto(`${gateway.url}#/gateway`);
    const lived = later.locator('.happenings');
    await until(async () => /degraded\s+For .*, code unreachable\./.test(await lived.innerText()), () => lived.innerText());
    assert.match(await lived.innerText(), /healthy\s+So far .*\n(.*\n)*.*recovering\s+For .* entr(y was|ies were) sent to Redis late/);
    assert.match(await later.locator('.timeline').getAttribute('aria-label'), /degraded from \d\d:\d\d:\d\d to \d\d:\d\d:\d\d, /);
    await later.getByText('as the gateway remembers it', { exact: true }).waitFor();
    await shot(later, 'after-outage-later');
    await isClean(later, 'the outage as the gateway remembers it');
    await later.context().close();
    await page.context().close();
    await gateway.end('SIGTERM');
    await redis.end();
    return undefined;
  },

  async 'a gateway that asks who one is'() {
    const access = new Access();
    const gateway = await Gateway.start('demo', '--config', access.config, '--storage', 'memory', '--interval-ms', '250', '--set', 'auth.leeway_s=0', '--set', 'orders.paper.failure_rate=0');
    const page = await tab();
    const links = () => page.locator('nav[aria-label=Views] a').allInnerTexts();
    const may = async (what) => until(async () => `${await links()}` === `${what}`, async () => `${what}; there are ${await links()}`);
    const form = page.getByRole('heading', { name: 'This gateway asks for a token' });
    const logIn = async (token) => {
      await page.getByLabel('Token', { exact: true }).fill(token);
      await page.getByRole('button', { name: 'Log in', exact: true }).click();
    };
    const logOut = async () => {
      await page.getByRole('button', { name: 'Log out' }).click();
      await form.waitFor();
      assert.equal(await page.evaluate(() => sessionStorage.length), 0, 'nothing of the token is left');
    };
    const to = (view) => page.goto(`${gateway.url}#/${view}`);

    // Without a token nothing is shown, at any address.
    for (const view of ['gateway', 'orders', 'prices/pjm']) {
      await to(view);
      await form.waitFor();
      assert.equal(await state(page), 'Not logged in');
      assert.deepEqual([await page.locator('table').count(), await links()], [0, FOR_ALL]);
    }
    await shot(page, 'login');
    await isClean(page, 'not logged in');
    await logIn('not.a.token');
    await page.getByText('The token that this tab has is not accepted.').waitFor();
    await isClean(page, 'a token that is none');

    // A viewer sees prices.
    await logIn(access.token('vera', '--role', 'viewer'));
    await isLive(page);
    await page.getByText('vera', { exact: true }).waitFor();
    await until(async () => (await rows(page).count()) >= 8, 'rows');
    await may(FOR_ALL);
    for (const action of ['Remove…', 'Place order']) assert.equal(await page.getByRole('button', { name: action }).count(), 0, action);
    await page.keyboard.press('4');
    assert.match(page.url(), /#\/prices/);
    await shot(page, 'reader');
    await isClean(page, 'a reader');
    for (const [view, says] of [['registries', 'providers'], ['registries/active-orders', 'active orders'], ['gateway', 'how the gateway is doing'], ['gateway/dead-letters', 'how the gateway is doing'], ['orders', 'or place orders']]) {
      await to(view);
      await page.getByText(`Your token does not let you see ${says}`).waitFor();
      await isClean(page, `a reader at ${view}`);
    }
    assert.ok(!page.url().includes('ey'), 'the token is not in the address');
    await logOut();
    await logIn(access.token('paula', '--right', 'subscribe:zone:pjm'));
    await to('prices/ercot');
    await page.getByText('Your token does not let you see ercot.').waitFor();
    await isClean(page, 'a zone that one may not see');
    await to('events/simulated/BTC-USDT');
    for (const what of ['states of exchanges', 'tickers', 'order books', 'candles', 'trades']) await page.getByText(`Your token does not let you see ${what}.`).waitFor();
    await isClean(page, 'events that one may not see');
    await logOut();

    // A trader has orders.
    await to('prices/pjm');
    await logIn(access.token('tom', '--role', 'trader'));
    await isLive(page);
    await may(['Prices', 'Events', 'Orders', 'Registries']);
    await page.getByRole('button', { name: 'Place order' }).click();
    await page.locator('.story.confirmed').waitFor();
    assert.equal(await page.getByRole('button', { name: 'Remove…' }).count(), 0);
    await isClean(page, 'a trader');
    access.revoke(gateway, 'tom');
    await page.getByText('Your token is no longer accepted.').waitFor();
    assert.ok((await rows(page).count()) >= 8, 'what was shown stays');
    await page.getByText('Not live').waitFor();
    await isClean(page, 'a token that was revoked');

    // An operator sees everything.
    await logIn(access.operator);
    await may(['Prices', 'Events', 'Orders', 'Registries', 'Gateway']);
    await page.getByRole('button', { name: 'Remove…' }).waitFor();
    await page.getByRole('link', { name: 'Gateway' }).click();
    await page.locator('.kpi').first().waitFor();
    await isClean(page, 'an operator');
    await logOut();

    // The end of a token is announced, and a new one requested.
    await to('prices/pjm');
    await logIn(access.token('eve', '--role', 'viewer', '--lifetime-s', '6'));
    await says(page, /Your login ends (now|in \d s)\. From \d\d:\d\d:\d\d on nothing comes/);
    await until(async () => (await rows(page).count()) >= 8, 'rows');
    await shot(page, 'login-ends');
    await isClean(page, 'a login that ends');
    await page.getByText(/Your token expired at \d\d:\d\d:\d\d\./).waitFor();
    assert.equal(await state(page), 'Not logged in');
    assert.ok((await rows(page).count()) >= 8, 'what was shown stays');
    await shot(page, 'login-ended');
    await isClean(page, 'a login that ended');
    await logIn(access.token('eve', '--role', 'viewer'));
    await isLive(page);
    await until(async () => (await rows(page).count()) >= 8, 'rows again');
    assert.equal(await banner(page), '');
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'a gateway where some zones are for everybody'() {
    const access = new Access('--public', 'pjm');
    const gateway = await Gateway.start('demo', '--config', access.config, '--storage', 'memory', '--interval-ms', '250');
    const page = await tab();
    await page.goto(gateway.url);
    await isLive(page);
    await until(async () => (await rows(page).count()) >= 8, 'rows');
    assert.match(page.url(), /#\/prices\/pjm$/);
    await until(async () => `${await page.locator('nav[aria-label=Views] a').allInnerTexts()}` === `${FOR_ALL}`, 'what is for all alone');
    await page.goto(`${gateway.url}#/prices/ercot`);
    await page.getByText('ercot is shown to those who log in.').waitFor();
    await page.goto(`${gateway.url}#/orders`);
    await page.getByText('This needs a login.').waitFor();
    await isClean(page, 'nobody, where some zones are public');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('button', { name: 'Not now' }).click();
    await page.getByRole('button', { name: 'Log in' }).click();
    await isClean(page, 'asked for a token');
    await page.getByLabel('Token', { exact: true }).fill(access.token('vera', '--role', 'viewer'));
    await page.keyboard.press('Enter');
    await page.getByText('vera', { exact: true }).waitFor();
    await page.goto(`${gateway.url}#/prices/ercot`);
    await until(async () => (await rows(page).count()) >= 4, 'rows of ercot');
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByText('ercot is shown to those who log in.').waitFor();
    assert.deepEqual(page.faults, []);
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'five tries, and then a button'() {
    const gateway = await Gateway.start('demo', '--storage', 'memory');
    const page = await tab();
    await toPrices(page, gateway.url);
    await isLive(page);
    const tries = [];
    const until5 = until(async () => {
      const found = /Try (\d) of 5/.exec(await banner(page));
      if (found && tries.at(-1) !== found[1]) tries.push(found[1]);
      return /5 tries to connect again failed/.test(await banner(page));
    }, async () => `given up; ${await banner(page)}`, 60_000);
    await gateway.end('SIGKILL');
    await until5;
    assert.deepEqual(tries, ['1', '2', '3', '4', '5']);
    assert.match(await state(page), /Not connected\s*stopped trying/);
    await shot(page, 'stopped');
    await isClean(page, 'given up');
    await gateway.start();
    await page.getByRole('button', { name: 'Reconnect now' }).click();
    await isLive(page);
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'offline, and a tab that is frozen'() {
    const gateway = await Gateway.start('demo', '--storage', 'memory', '--interval-ms', '250');
    const page = await tab();
    await toPrices(page, gateway.url);
    await until(async () => (await rows(page).count()) >= 8, 'rows');
    await page.context().setOffline(true);
    await says(page, /This device has been offline since/);
    assert.match(await state(page), /^Offline/);
    await shot(page, 'offline');
    await isClean(page, 'offline');
    await page.context().setOffline(false);
    await isLive(page);
    // A sleeping tab closes its connection, and is complete after waking.
    const cdp = await page.context().newCDPSession(page);
    await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
    await cdp.send('Page.setWebLifecycleState', { state: 'active' });
    await isLive(page);
    const before = await price(page, 'WESTERN HUB');
    await until(async () => (await price(page, 'WESTERN HUB')) !== before, 'prices go on');
    // A hidden tab draws nothing, and is up to date when shown.
    const hide = (isHidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event('visibilitychange'));
    }, isHidden);
    await hide(true);
    const drawn = await page.locator('table.board td.price').allInnerTexts();
    const { messages } = await gateway.get('ws/stats?connections=0');
    await until(async () => (await gateway.get('ws/stats?connections=0')).messages.sent > messages.sent + 50, 'prices that come meanwhile');
    assert.deepEqual(await page.locator('table.board td.price').allInnerTexts(), drawn, 'a hidden tab draws nothing');
    await hide(false);
    await until(async () => `${await page.locator('table.board td.price').allInnerTexts()}` !== `${drawn}`, 'prices of now');
    await isLive(page);
    assert.deepEqual(page.faults, []);
    await page.context().close();
    await gateway.end('SIGTERM');
  },

  async 'below a path behind nginx, and on a page of another origin that is listed'() {
    const port = await freePort();
    const gateway = await Gateway.start('demo', '--storage', 'memory', '--interval-ms', '250', '--set', 'http.base_path=/desk/prices', '--set', `http.origins=["http://127.0.0.1:${port}"]`, '--set', 'http.trusted_proxies=["127.0.0.1"]');
    const page = await tab();
    if (has('nginx')) {
      await toPrices(page, await nginx(gateway, '/desk/prices'));
      await until(async () => (await rows(page).count()) >= 8, 'rows behind nginx');
      await page.getByRole('button', { name: 'Place order' }).click();
      await page.locator('.story').waitFor();
      await page.getByRole('link', { name: 'Gateway' }).click();
      await page.getByRole('heading', { name: 'Nothing accepted is lost' }).waitFor();
      assert.deepEqual(page.faults, []);
    }
    const dist = join(import.meta.dirname, '../../dist');
    const kinds = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', html: 'text/html' };
    const server = createServer((request, response) => {
      const path = request.url === '/' ? 'index.html' : request.url.slice(1);
      let body = readFileSync(join(dist, path));
      if (path === 'index.html') body = String(body).replace('<head>', `<head><meta name="zonewire-gateway" content="${gateway.url}">`);
      response.writeHead(200, { 'content-type': kinds[path.split('.').at(-1)] }).end(body);
    }).listen(port, '127.0.0.1');
    await toPrices(page, `http://127.0.0.1:${port}/`);
    await until(async () => (await rows(page).count()) >= 8, 'rows on a page of another origin');
    await page.getByRole('button', { name: 'Place order' }).click();
    await page.locator('.story').waitFor();
    assert.deepEqual(page.faults, []);
    await page.context().close();
    server.closeAllConnections();
    server.close();
    await gateway.end('SIGTERM');
    return has('nginx') ? undefined : 'there is no nginx';
  },
  ...markets,
};

/** It mostly waits, so it runs beside the others. */
const ASIDE = 'five tries, and then a button';
const wanted = process.argv.slice(2);
const names = Object.keys(tests).filter((name) => wanted.length === 0 || wanted.some((word) => name.includes(word)));
let failed = 0;
async function run(name) {
  const began = Date.now();
  try {
    const skipped = await tests[name]();
    console.log(`${skipped ? `skipped in part: ${skipped}:` : 'ok'} ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}\n${error.stack}`);
  }
}
try {
  const aside = names.includes(ASIDE) ? run(ASIDE) : undefined;
  for (const name of names.filter((it) => it !== ASIDE)) await run(name);
  await aside;
} finally {
  await over();
}
process.exit(failed === 0 ? 0 : 1);
