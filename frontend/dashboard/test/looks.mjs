// Checks that all tests of the page use: the state of the connection, the text of the banner, the findings of
// axe.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { until, violations } from './support.mjs';

const shots = process.env.ZONEWIRE_TEST_SHOTS;
export const shot = (page, name, more = {}) => (shots ? page.screenshot({ path: join(shots, `${name}.png`), ...more }) : undefined);

export const state = (page) => page.locator('.state').innerText();
export const isLive = (page) => until(async () => (await state(page)).startsWith('Live'), async () => `Live; it says ${await state(page)}`);
export const banner = (page) => page.locator('.banner').innerText({ timeout: 500 }).catch(() => '');
export const says = (page, words, withinMs) => until(async () => words.test(await banner(page)), async () => `a banner with ${words}; it says ${JSON.stringify(await banner(page))}, ${await state(page)}`, withinMs);

export async function fits(page, what) {
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wider <= 0, `${what} is ${wider} px too wide`);
}

export async function isClean(page, what) {
  assert.deepEqual(await violations(page), [], what);
  assert.deepEqual(page.faults, [], what);
}
