// Parts of the page that need no browser: formatting numbers, ordering points, closing gaps.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { join } from 'node:path';
import { createServer } from 'vite';

const server = await createServer({ root: join(import.meta.dirname, '..'), logLevel: 'error', appType: 'custom', server: { middlewareMode: true, hmr: false, watch: null }, optimizeDeps: { noDiscovery: true, include: [] } });
const { age, bytes, clock, decimalsOf, duration, fixed, plural, short, signed } = await server.ssrLoadModule('/src/format.ts');
const { Series } = await server.ssrLoadModule('/src/series.ts');
const tell = await server.ssrLoadModule('/src/tell.ts');
const { Book, BookReader } = await server.ssrLoadModule('/src/book.ts');
const { Candles } = await server.ssrLoadModule('/src/candles.ts');
const { Records } = await server.ssrLoadModule('/src/records.ts');
const { decimalsIn, KEPT, Tape } = await server.ssrLoadModule('/src/tape.ts');
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

test('a late point goes to its place in time', () => {
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

const spell = (more) => ({ state: 'healthy', storage_backend: 'redis', scope: 'all', since: '2026-11-30T08:00:00Z', lasted_ms: 192_400, reason_code: 'ok', reason: 'Redis 7.0.15 serves', entries_late: 0, entries_put_back: 0, entries_let_go: 0, entries_refused: 0, logs_lost: 0, ...more });

test('a state of the storage says how long, why, and what came of it', () => {
  for (const [it, waits, expected] of [
    [spell(), 0, 'So far 3 min 12 s. Redis 7.0.15 serves.'],
    [spell({ state: 'degraded', lasted_ms: 12_000, reason: 'nothing answers at that address', reason_code: 'unreachable' }), 812, 'So far 12 s. Nothing answers at that address, code unreachable. 812 entries wait for Redis.'],
    [spell({ state: 'degraded', until: '2026-11-30T08:00:12Z', lasted_ms: 12_000, scope: 'some', reason: 'nothing answers at that address', reason_code: 'unreachable' }), 812, 'For 12 s, a part of Redis. Nothing answers at that address, code unreachable.'],
    [spell({ state: 'recovering', until: '2026-11-30T08:00:12Z', lasted_ms: 441, reason: '', entries_late: 812, entries_refused: 1 }), 3, 'For 441 ms. 812 entries were sent to Redis late; 1 entry was refused, since the journal was full.'],
  ]) assert.equal(tell.spellInWords(it, waits), expected);
});

test('how far a subscription is behind is said only where that can be known', () => {
  const one = { channel: 'zone:pjm', phase: 'live', epoch: 'a', offset: 100 };
  for (const [end, expected, said] of [[undefined, null, 'live'], [{ epoch: 'b', offset: 900 }, null, 'live'], [{ epoch: 'a', offset: 100 }, 0, 'up to date'], [{ epoch: 'a', offset: 99 }, 0, 'up to date'], [{ epoch: 'a', offset: 1204 }, 1104, '1,104 entries behind']]) {
    assert.equal(tell.lagOf(one, end), expected);
    assert.equal(tell.phaseInWords(one, tell.lagOf(one, end)), said);
  }
  assert.equal(tell.phaseInWords(one, 0, 3), 'up to date once it takes what waits');
  assert.equal(tell.phaseInWords({ ...one, phase: 'catching_up' }, 1), 'catches up, 1 entry behind');
  assert.equal(tell.phaseInWords({ ...one, phase: 'finished' }, null), 'has ended with its order');
});

test('each change of a connection is reported once', () => {
  const was = { health: 'healthy', waiting_messages: 0, waiting_bytes: 0, waited_for: false, subscriptions: [{ channel: 'zone:pjm', phase: 'catching_up' }, { channel: 'zone:old', phase: 'live' }] };
  const is = { ...was, health: 'behind', waiting_messages: 3, waiting_bytes: 2048, closing: 'slow_consumer', subscriptions: [{ channel: 'zone:pjm', phase: 'live' }, { channel: 'order:0123456789', phase: 'live' }] };
  assert.deepEqual(tell.changes(was, was), []);
  assert.deepEqual(tell.changes(was, is).map(({ word, text }) => `${word}: ${text}`), [
    'behind: Does not keep up with what is sent; 3 messages wait for it, 2.0 KiB.',
    'closing: Its close is under way: slow_consumer.',
    'follows: It follows order 01234567 from now on.',
    'leaves: It follows old no longer.',
    'live: It has caught up with pjm.',
  ]);
});

test('the ids with a prefix come right after one id', () => {
  for (const [prefix, expected] of [['3f', '3effffff-ffff-ffff-ffff-ffffffffffff'], ['3F2a1B2c-4', '3f2a1b2c-3fff-ffff-ffff-ffffffffffff'], ['0', '00000000-0000-0000-0000-000000000000'], ['x', null], ['', null], ['0'.repeat(33), null]]) assert.equal(tell.before(prefix), expected, prefix);
  assert.ok(tell.begins('3f2a1b2c-4d5e-4f60-8123-456789abcdef', '3F2A1B2C-4d'));
  assert.ok(!tell.begins('3f2a1b2c-4d5e-4f60-8123-456789abcdef', '3f2b'));
});

// Books

const whole = (sequence, bids, asks) => ({ exchange: 'x', symbol: 'A-B', kind: 'snapshot', bids, asks, sequence });
const change = (sequence, bids, asks = [], previousSequence = sequence - 1) => ({ ...whole(sequence, bids, asks), kind: 'delta', previousSequence });
const told = (offset, data, more = {}) => ({ offset, timestamp: new Date(offset * 1000).toISOString(), data, ...more });
const levels = ({ bids, asks }) => [bids, asks].map((side) => side.map(({ priceText, sizeText }) => `${priceText}x${sizeText}`).join(' '));

test('a book is its last snapshot and what follows on it', () => {
  const book = new Book();
  assert.equal(book.take(change(5, [['1', '1']])), 'hole');
  assert.equal(book.take(whole(10, [['9.90', '1'], ['10.00', '2']], [['10.50', '1'], ['10.10', '3']])), 'whole');
  assert.deepEqual(levels(book), ['10.00x2 9.90x1', '10.10x3 10.50x1']);
  assert.equal(book.take(change(11, [['9.95', '4'], ['9.90', '0']], [['10.10', '0.5']])), 'applied');
  assert.deepEqual(levels(book), ['10.00x2 9.95x4', '10.10x0.5 10.50x1']);
  // The same price with other digits, and one that never existed.
  assert.equal(book.take(change(12, [[9.95, 7]], [['11', '0']])), 'applied');
  assert.deepEqual(levels(book), ['10.00x2 9.95x7', '10.10x0.5 10.50x1']);
  assert.equal(book.take(change(12, [['1', '1']])), 'old');
  assert.equal(book.take(change(14, [['1', '1']])), 'hole');
  assert.equal(book.sequence, 12);
  assert.equal(book.take(whole(3, [], [])), 'whole', 'a snapshot counts, also where its numbers begin anew');
  assert.deepEqual(levels(book), ['', '']);
});

test('a side keeps a bounded number of levels, the best ones', () => {
  const book = new Book();
  book.take(whole(1, Array.from({ length: 6000 }, (_, i) => [i + 1, 1]), Array.from({ length: 6000 }, (_, i) => [i + 1, 1])));
  assert.deepEqual([book.bids.length, book.bids[0].price, book.asks.length, book.asks[0].price], [5000, 6000, 5000, 1]);
});

test('a book says since when a change is missing, and has it when that comes or the next whole one does', () => {
  const reader = new BookReader(() => assert.fail(), () => undefined);
  reader.take(told(1, change(4, [['9', '1']])));
  assert.deepEqual([reader.isBehind, reader.book.sequence], [false, null]);
  reader.take(told(2, whole(3, [['8', '1']], [])));
  assert.deepEqual([...levels(reader.book), reader.at], ['9x1 8x1', '', 1000], 'what waited follows on it');
  reader.take(told(3, change(6, [['7', '1']])));
  reader.take(told(4, change(7, [['6', '1']])));
  assert.deepEqual([reader.isBehind, reader.book.sequence, reader.at], [true, 4, 1000]);
  reader.take(told(5, change(5, [['5', '1']])));
  assert.deepEqual([reader.isBehind, reader.book.sequence], [true, 4], 'what comes behind a hole waits for its turn');
  reader.take(told(6, whole(6, [['9', '2']], [])));
  assert.deepEqual([reader.isBehind, reader.book.sequence, ...levels(reader.book)], [false, 7, '9x2 6x1', '']);
  reader.take(told(7, whole(2, [['1', '1']], []), { late: true }));
  assert.equal(reader.book.sequence, 7, 'a late one of before is passed over');
  for (let i = 0; i < 5000; i += 1) reader.take(told(10 + i, change(100 + i, [['3', '1']])));
  assert.deepEqual([reader.isBehind, reader.book.sequence], [true, 7]);
});

test('between the snapshot and what follows, the log is read', async () => {
  const asked = [];
  let answer;
  const reader = new BookReader((...what) => { asked.push(what); return new Promise((resolve) => { answer = resolve; }); }, () => undefined);
  reader.take(told(100, whole(50, [['9', '1']], []), { snapshot: true }));
  const filled = reader.snapshotEnd('e1', 140);
  // Entries that arrive meanwhile wait.
  reader.take(told(141, change(53, [['7', '1']])));
  assert.equal(reader.isBehind, true);
  answer([told(120, change(51, [['9', '2']])), told(130, change(52, [['8', '1']]))]);
  await filled;
  assert.deepEqual([asked, reader.isBehind, reader.book.sequence, ...levels(reader.book)], [[['e1', 100, 140]], false, 53, '9x2 8x1 7x1', '']);
  await reader.snapshotEnd('e1', 141);
  assert.equal(asked.length, 1, 'nothing lies between');
  // Another epoch of the log, which has no book.
  reader.begin();
  await reader.snapshotEnd('e2', 0);
  assert.deepEqual([reader.isBehind, reader.book.sequence, reader.at], [true, 53, 141_000]);
  reader.begin();
  reader.take(told(1, whole(1, [['3', '1']], []), { snapshot: true }));
  await reader.snapshotEnd('e2', 1);
  assert.deepEqual([reader.isBehind, ...levels(reader.book)], [false, '3x1', '']);
});

// Registries, tapes, candles

test('of two records of a key the greater version counts, and records missing from a snapshot are gone', () => {
  const records = new Records();
  const put = (key, version, record) => records.take({ type: 'record_update', key, version, timestamp: '2026-11-29T12:00:00Z', record });
  const keys = () => records.list().map(({ key }) => key);
  for (const key of ['user-10', 'user-2', '07', '7']) put(key, 'b', { status: 'online' });
  assert.deepEqual(keys(), ['07', '7', 'user-2', 'user-10']);
  put('7', 'a', { status: 'old' });
  put('07', 'c', { status: 'new' });
  assert.deepEqual(records.list().map(({ record }) => record.status), ['new', 'online', 'online', 'online']);
  records.take({ type: 'key_removed', key: '7', version: 'd', timestamp: '2026-11-29T12:00:00Z' });
  put('7', 'c', { status: 'late' });
  assert.deepEqual(keys(), ['07', 'user-2', 'user-10']);
  records.begin();
  put('user-2', 'b', {});
  records.end(false);
  assert.equal(records.size, 3, 'those that could not be reached stay');
  records.begin();
  put('user-2', 'b', {});
  put('user-3', 'b', {});
  records.end(true);
  assert.deepEqual(keys(), ['user-2', 'user-3']);
});

test('a tape keeps its newest lines', () => {
  const tape = new Tape();
  for (let i = 0; i < KEPT + 50; i += 1) tape.trade({ timestamp: '2026-11-29T12:00:00Z', data: { exchange: 'x', symbol: 'A-B', price: `${i}.10`, size: 1 } });
  assert.deepEqual([tape.count, tape.line(KEPT + 49).trade.price, tape.line(50).trade.price, tape.decimals], [KEPT + 50, '249.10', '50.10', { price: 2, size: 0 }]);
  for (const [text, expected] of [['1', 0], ['1.5', 1], ['1.50', 2], ['64001.20000000', 2], ['0.00012000', 5], ['1e-7', 8]]) assert.equal(decimalsIn(text), expected, text);
});

test('the last update of a candle counts, and a closed candle stays closed', () => {
  const candles = new Candles();
  const say = (openTime, close, closed, at, interval = '1m') => candles.take({ timestamp: new Date(at).toISOString(), data: { interval, openTime, open: '1', high: '3', low: '1', close, volume: '1', closed } });
  say('1970-01-01T00:02:00Z', '2', false, 130_000);
  say(60_000 * 1e6 * 1e4, '1', true, 125_000, '1h');
  say(1_795_232_400, '2', false, 1_795_232_410_000, '5m');
  say('1970-01-01T00:01:00Z', '9', true, 121_000);
  say('1970-01-01T00:02:00Z', '3', true, 181_000);
  say('1970-01-01T00:02:00Z', '4', false, 182_000);
  assert.deepEqual(candles.by.get('1m').map(({ begins, close, isClosed }) => [begins, close, isClosed]), [[60_000, 9, true], [120_000, 3, true]]);
  assert.deepEqual(candles.intervals(), ['1m', '5m', '1h']);
  assert.equal(candles.by.get('5m')[0].begins, 1_795_232_400_000);
});
