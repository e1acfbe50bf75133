// What of the page needs no browser: numbers as they are written, points in their order, the end of a hole.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { join } from 'node:path';
import { createServer } from 'vite';

const server = await createServer({ root: join(import.meta.dirname, '..'), logLevel: 'error', appType: 'custom', server: { middlewareMode: true, hmr: false, watch: null }, optimizeDeps: { noDiscovery: true, include: [] } });
const { age, bytes, clock, decimalsOf, duration, fixed, plural, short, signed } = await server.ssrLoadModule('/src/format.ts');
const { Series } = await server.ssrLoadModule('/src/series.ts');
await server.close();

const points = (series) => Array.from({ length: series.length }, (_, i) => [series.times[i], series.values[i]]);

test('numbers have a real minus, the same decimals, and commas', () => {
  for (const [value, decimals, expected] of [[41.2, 2, '41.20'], [-4.18, 2, '−4.18'], [-0.001, 2, '0.00'], [0, 0, '0'], [39432.48, 3, '39,432.480'], [-1234567.5, 1, '−1,234,567.5'], [999.999, 2, '1,000.00'], [999, 0, '999'], [1000, 0, '1,000'], [999.9, 1, '999.9'], [null, 2, '–'], [NaN, 2, '–'], [1.7e308, 2, '1.7e+308']]) {
    assert.equal(fixed(value, decimals), expected, `${value}`);
  }
});

test('a change has its sign in front, and none where there is none', () => {
  for (const [value, expected] of [[1.37, '▲ 1.37'], [-12.06, '▼ 12.06'], [0, '= 0.00'], [-0.001, '= 0.00'], [null, '–'], [-1234.5, '▼ 1,234.50']]) assert.equal(signed(value, 2), expected);
});

test('decimals are counted as they were written', () => {
  for (const [value, expected] of [[41, 0], [41.25, 2], [-0.5, 1], [1e-9, 6], [0.1234567891, 6], [1e21, 0]]) assert.equal(decimalsOf(value), expected, `${value}`);
});

test('times are short, and in two units at the most', () => {
  for (const [ms, expected] of [[-5, '0 s'], [48_000, '48 s'], [192_000, '3 min 12 s'], [180_000, '3 min'], [7_500_000, '2 h 5 min'], [270_000_000, '3 d 3 h']]) assert.equal(duration(ms), expected);
  for (const [ms, expected] of [[0, 'now'], [-800, 'now'], [4_200, '4 s'], [99_000, '99 s'], [120_000, '2 min'], [7_200_000, '2 h'], [200_000_000, '2 d'], [-7_200_000, 'in 2 h']]) assert.equal(age(ms), expected, `${ms}`);
  const noon = new Date(2026, 10, 29, 12, 0, 5).getTime();
  assert.equal(clock(noon, noon + 1000), '12:00:05');
  assert.equal(clock(noon, noon + 86_400_000), '2026-11-29 12:00:05');
  assert.equal(clock(NaN), '–');
});

test('counts and sizes', () => {
  for (const [value, expected] of [[0, '0'], [29.64, '29.6'], [151, '151'], [9_994, '9,994'], [48_210, '48.2k'], [999_700, '1.0M'], [3_400_000, '3.4M']]) assert.equal(short(value), expected);
  for (const [value, expected] of [[0, '0 B'], [1023, '1023 B'], [1024, '1.0 KiB'], [426 * 1024, '426 KiB'], [268_435_456, '256 MiB']]) assert.equal(bytes(value), expected);
  assert.deepEqual([plural(1, 'entry', 'entries'), plural(1204, 'entry', 'entries')], ['1 entry', '1,204 entries']);
});

test('what comes late goes where it belongs', () => {
  const series = new Series(100);
  for (const at of [10, 20, 40, 30, 5, 40]) series.push(at, at);
  series.push(20, 21);
  assert.deepEqual(points(series), [[5, 5], [10, 10], [20, 21], [30, 30], [40, 40], [40, 40]]);
  assert.deepEqual([series.after(4), series.after(5), series.after(100)], [0, 1, 6]);
});

test('past its bound the oldest go, also where something is late', () => {
  const series = new Series(20);
  for (let at = 1; at <= 1000; at += 1) {
    series.push(at * 10, at);
    if (at % 7 === 0) series.push(at * 10 - 25, -at);
    assert.ok(series.length <= 20);
    const times = points(series).map(([time]) => time);
    assert.deepEqual(times, times.toSorted((a, b) => a - b));
  }
  assert.equal(series.values[series.length - 1], 1000);
});

test('points that are near take the place of the newest', () => {
  const series = new Series(100, 2000);
  for (let at = 0; at <= 10_000; at += 100) series.push(at, at);
  assert.ok(series.length <= 12, `${series.length}`);
  assert.deepEqual(points(series).at(-1), [10_000, 10_000]);
});

test('a hole is several of the usual pauses', () => {
  const series = new Series(100);
  assert.equal(series.holeMs(), Infinity);
  for (let at = 0; at < 10; at += 1) series.push(at * 10_000, 1);
  assert.equal(series.holeMs(), 50_000);
});
