// The page's cost for the browser, with a gateway of its own and a thousand keys.
//   node test/measure.mjs frames [seconds at each rate, 60] [keys, 1000]
//   node test/measure.mjs memory [minutes, 10] [keys, 1000]
//   node test/measure.mjs tape [seconds, 60], or tape-memory [minutes, 10]
//   node test/measure.mjs load
// Frames: what the page's own thread does from one frame to the next, by the browser's trace, in time of the processor:
// scripts (the socket's messages among them), style and layout, painting. The time between frames is apart: a display has
// one each 16.7 ms, the page draws when prices have come, and without a graphics card the machine rasters them itself.
// Memory: after a full collection, each minute, at 200 prices a second.
// Tape: the same of the view of events, with 1,000 trades and 50 changes of the book a second.
import { Gateway, over, publishing, tab, trading, until } from './support.mjs';

const [what = 'frames', ...numbers] = process.argv.slice(2);
const [amount = what.endsWith('memory') ? 10 : 60, keys = 1000] = numbers.map(Number);
const pick = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
const ms = (times, part) => pick(times.sort((a, b) => a - b), part).toFixed(1);
const waits = (time) => new Promise((later) => setTimeout(later, time));

/** The page with all keys, sorted by price. */
async function shown(gateway, zone) {
  const page = await tab();
  await page.goto(`${gateway.url}#/prices/${zone}?sort=-price`);
  await until(async () => (await page.locator('.foot').first().innerText()).includes(`${keys.toLocaleString('en')} keys`), 'all keys');
  await waits(3000);
  return page;
}

const KINDS = {
  scripts: ['FunctionCall', 'EvaluateScript', 'FireAnimationFrame', 'TimerFire', 'RunMicrotasks', 'v8.callFunction', 'WebSocketReceive', 'EventDispatch', 'MinorGC', 'MajorGC'],
  layout: ['UpdateLayoutTree', 'Layout', 'InvalidateLayout', 'ScheduleStyleRecalculation', 'Animation'],
  painting: ['PrePaint', 'Paint', 'Layerize', 'Commit', 'UpdateLayer', 'UpdateLayerTree', 'CompositeLayers'],
};
const kindOf = new Map(Object.entries(KINDS).flatMap(([kind, names]) => names.map((name) => [name, kind])));

/** Milliseconds of CPU time: other processes do not count. */
const took = (it) => (it.tdur ?? it.dur) / 1000;

/** Milliseconds of the page's thread by kind, for each frame of a trace. */
function framesOf(events) {
  const main = events.find((it) => it.name === 'thread_name' && it.args.name === 'CrRendererMain' && events.some((other) => other.pid === it.pid && other.tid === it.tid && other.name === 'FireAnimationFrame'));
  const mine = events.filter((it) => it.pid === main.pid && it.tid === main.tid && it.ph === 'X').sort((a, b) => a.ts - b.ts || b.dur - a.dur);
  const begins = mine.filter((it) => it.name === 'FireAnimationFrame').map((it) => it.ts);
  // Several callbacks of one frame begin together.
  const frames = begins.filter((at, i) => i === 0 || at - begins[i - 1] > 4000);
  const spent = frames.map(() => ({ all: 0, scripts: 0, layout: 0, painting: 0 }));
  let frame = 0;
  const ends = { task: 0, scripts: 0, layout: 0, painting: 0 };
  for (const it of mine) {
    while (frame + 1 < frames.length && it.ts >= frames[frame + 1]) frame += 1;
    if (it.ts < frames[0]) continue;
    // Of nested events, the outermost counts.
    const kind = kindOf.get(it.name);
    if (it.name === 'RunTask' && it.ts >= ends.task) {
      ends.task = it.ts + it.dur;
      spent[frame].all += took(it);
    } else if (kind && it.ts >= ends[kind]) {
      ends[kind] = it.ts + it.dur;
      spent[frame][kind] += took(it);
      // Layout that a script forces does not count as script.
      if (kind === 'layout' && it.ts < ends.scripts) spent[frame].scripts -= took(it);
    }
  }
  return { spent: spent.slice(0, -1), apart: frames.slice(1).map((at, i) => (at - frames[i]) / 1000) };
}

/** Traces for so long. */
async function traced(cdp, seconds) {
  const events = [];
  const take = ({ value }) => { for (const it of value) events.push(it); };
  cdp.on('Tracing.dataCollected', take);
  await cdp.send('Tracing.start', { transferMode: 'ReportEvents', traceConfig: { recordMode: 'recordAsMuchAsPossible', includedCategories: ['devtools.timeline', 'disabled-by-default-devtools.timeline', 'toplevel', 'v8'] } });
  await waits(seconds * 1000);
  const complete = new Promise((resolve) => cdp.once('Tracing.tracingComplete', resolve));
  await cdp.send('Tracing.end');
  await complete;
  cdp.off('Tracing.dataCollected', take);
  return events;
}

/** The view of events, with a book and a full tape. */
async function shownEvents(gateway) {
  const page = await tab();
  await page.goto(`${gateway.url}#/events/desk/EUR-USD`);
  await until(async () => /the newest 200 of/.test(await page.locator('.tape .foot').innerText()) && (await page.locator('table.book').getAttribute('data-sequence')) !== null, 'a tape and a book');
  await waits(3000);
  return page;
}

async function frames(page, feed) {
  const cdp = await page.context().newCDPSession(page);
  const spent = [];
  const apart = [];
  // A trace is held in memory, so it is recorded in parts.
  const PART = 10;
  for (let at = 0; at < amount; at += PART) {
    const part = framesOf(await traced(cdp, Math.min(PART, amount - at)));
    spent.push(...part.spent);
    apart.push(...part.apart);
  }
  const of = (...kinds) => spent.map((it) => kinds.reduce((sum, kind) => sum + it[kind], 0));
  const own = of('scripts', 'layout');
  console.log(`| ${Math.round(await feed.stop())} | ${(spent.length / amount).toFixed(0)} | ${ms(own, 0.5)} | ${ms(own, 0.95)} | ${ms(own, 0.99)} | ${ms(of('painting'), 0.95)} | ${ms(of('all'), 0.5)} | ${ms(of('all'), 0.95)} | ${ms(apart, 0.5)} | ${ms(apart, 0.95)} |`);
  await page.context().close();
}

async function memory(page, feed) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('Performance.enable');
  console.log('| minute | heap after a collection, MiB | DOM nodes | listeners | documents |');
  console.log('| ---: | ---: | ---: | ---: | ---: |');
  for (let minute = 0; minute <= amount; minute += 1) {
    if (minute > 0) await waits(60_000);
    await cdp.send('HeapProfiler.collectGarbage');
    const { metrics } = await cdp.send('Performance.getMetrics');
    const of = (name) => metrics.find((it) => it.name === name).value;
    console.log(`| ${minute} | ${(of('JSHeapUsedSize') / 2 ** 20).toFixed(2)} | ${of('Nodes')} | ${of('JSEventListeners')} | ${of('Documents')} |`);
  }
  console.log(`${Math.round(await feed.stop())} a second`);
}

const heads = (of) => {
  console.log(`| ${of} a second | frames a second | scripts, style and layout, p50, ms | p95, ms | p99, ms | painting, p95, ms | all of the thread, p50, ms | p95, ms | from frame to frame, p50, ms | p95, ms |`);
  console.log('| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
};

const measures = {
  async frames(gateway) {
    heads('prices');
    for (const rate of [200, 2000]) {
      const feed = await publishing(gateway, `nodes-${rate}`, keys, rate);
      await frames(await shown(gateway, `nodes-${rate}`), feed);
    }
  },

  async memory(gateway) {
    const feed = await publishing(gateway, 'nodes', keys, 200);
    await memory(await shown(gateway, 'nodes'), feed);
  },

  async tape(gateway) {
    heads('trades');
    for (const rate of [100, 1000]) {
      const feed = await trading(gateway, rate);
      await frames(await shownEvents(gateway), feed);
    }
  },

  async 'tape-memory'(gateway) {
    const feed = await trading(gateway, 1000);
    await memory(await shownEvents(gateway), feed);
  },

  async load(gateway) {
    for (const view of ['prices', 'orders', 'gateway']) {
      const page = await tab();
      const cdp = await page.context().newCDPSession(page);
      await cdp.send('Network.enable');
      const [kinds, files] = [new Map(), []];
      cdp.on('Network.responseReceived', ({ requestId, response }) => kinds.set(requestId, response));
      cdp.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => files.push([kinds.get(requestId), encodedDataLength]));
      await page.goto(`${gateway.url}#/${view}`);
      await page.locator('main h1, main .panel').first().waitFor();
      await page.waitForLoadState('networkidle');
      const own = files.filter(([it]) => /\/(assets\/|mark\.svg|$)/.test(new URL(it.url).pathname));
      console.log(`${view}: ${own.length} files, ${own.reduce((sum, [, bytes]) => sum + bytes, 0).toLocaleString('en')} bytes with their heads (${[...new Set(own.map(([it]) => it.headers['content-encoding'] ?? 'as they are'))].join(', ')})`);
      await page.context().close();
    }
  },
};

try {
  const gateway = await Gateway.start('serve', '--storage', 'memory');
  await measures[what](gateway);
  await gateway.end('SIGTERM');
} finally {
  await over();
}
process.exit(0);
