// Renders the pictures of docs/images: node test/pictures.mjs [seconds of prices to draw, 90]
import { join } from 'node:path';
import { Gateway, over, Redis, tab, until } from './support.mjs';

const seconds = Number(process.argv[2] ?? 90);
const images = process.env.ZONEWIRE_TEST_SHOTS ?? join(import.meta.dirname, '../../../docs/images');
const shot = (page, name) => page.screenshot({ path: join(images, `${name}.png`) });

/** The chart and the sparklines have the log's history. */
const drawn = (page) => until(async () => /^The log keeps/.test(await page.locator('.ranges > .dim').innerText()) && (await page.locator('td.change').allInnerTexts()).every((text) => text !== '–'), 'prices of the log');

try {
  const redis = await Redis.start();
  const gateway = await Gateway.start('demo', '--redis-url', redis.url, '--interval-ms', '250', '--set', 'orders.paper.failure_rate=0');
  const watching = await tab({ width: 1440, height: 1000 });
  await watching.goto(`${gateway.url}#/gateway`);
  await new Promise((later) => setTimeout(later, seconds * 1000));
  const page = await tab();
  await page.goto(`${gateway.url}#/prices/pjm,ercot?key=pjm/WESTERN%20HUB&range=5m`);
  await page.getByRole('button', { name: 'Place order' }).click();
  await page.locator('.story.submitted, .story.confirmed').waitFor();
  await page.locator('.notice button').click();
  await shot(page, 'prices');
  await shot(watching, 'gateway');
  // The page with two zones, as an operator sees it.
  const { connection_list: connections } = await gateway.get('ws/stats');
  const told = await tab({ width: 1440, height: 760 });
  await told.goto(`${gateway.url}#/gateway/connections/${connections.find((it) => it.channels.length >= 2).connection_id}`);
  await until(async () => /ercot/.test(await told.locator('main').innerText()), 'the story of a connection');
  await new Promise((later) => setTimeout(later, 2500));
  await shot(told, 'connection');
  await told.context().close();
  const events = await tab({ width: 1440, height: 900 });
  await events.goto(`${gateway.url}#/events/simulated/BTC-USDT`);
  await until(async () => (await events.locator('.tape tbody tr').count()) > 15 && (await events.locator('table.book').getAttribute('data-sequence')) !== null, 'a tape and a book');
  await new Promise((later) => setTimeout(later, 2500));
  await shot(events, 'events');
  await events.context().close();
  const dark = await tab({ dark: true });
  await dark.goto(`${gateway.url}#/prices/caiso?sort=-price&range=5m`);
  await drawn(dark);
  await shot(dark, 'dark');
  const small = await tab({ width: 375, height: 812 });
  await small.goto(`${gateway.url}#/prices/pjm?key=pjm/WESTERN%20HUB&range=5m`);
  await drawn(small);
  await shot(small, 'small');
  await redis.end();
  await watching.locator('.verdict b.degraded').waitFor();
  await until(async () => Number((await watching.locator('.facts dd').first().innerText()).replaceAll(',', '')) > 500, 'entries that wait');
  await shot(watching, 'outage');
} finally {
  await over();
}
process.exit(0);
