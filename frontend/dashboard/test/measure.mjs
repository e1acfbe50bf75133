// How long frames take, and how much memory the page holds, with a thousand keys at two rates.
//   node test/measure.mjs [seconds at each rate, 60] [keys, 1000]
// A frame counts from its animation callback until its picture is done, with whatever came in between.
import { Gateway, over, publishing, tab, until } from './support.mjs';

const [seconds = 60, keys = 1000] = process.argv.slice(2).map(Number);
const pick = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;

try {
  const gateway = await Gateway.start('serve', '--storage', 'memory');
  const page = await tab();
  await page.addInitScript(() => {
    const ask = window.requestAnimationFrame.bind(window);
    const after = new MessageChannel();
    let began = 0;
    window.frameTimes = [];
    window.scriptTimes = [];
    window.requestAnimationFrame = (draw) => ask((at) => {
      const now = performance.now();
      draw(at);
      window.scriptTimes.push(performance.now() - now);
      if (began === 0) {
        began = now;
        after.port2.postMessage(0);
      }
    });
    after.port1.onmessage = () => {
      window.frameTimes.push(performance.now() - began);
      began = 0;
    };
  });
  const cdp = await page.context().newCDPSession(page);
  const heap = async () => {
    await cdp.send('HeapProfiler.collectGarbage');
    return (await cdp.send('Runtime.getHeapUsage')).usedSize / 2 ** 20;
  };
  console.log('| prices a second | frames a second | p50, ms | p95, ms | p99, ms | longest, ms | of it scripts, p50, ms | p95, ms | heap at first, MiB | heap at the end, MiB |');
  console.log('| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const rate of [200, 2000]) {
    const feed = await publishing(gateway, `nodes-${rate}`, keys, rate);
    await page.goto(`${gateway.url}#/prices/nodes-${rate}?sort=-price`);
    await until(async () => (await page.locator('.foot').first().innerText()).includes(`${keys.toLocaleString('en')} keys`), 'all keys');
    await new Promise((later) => setTimeout(later, 3000));
    const before = await heap();
    await page.evaluate(() => { window.frameTimes.length = window.scriptTimes.length = 0; });
    const began = Date.now();
    await new Promise((later) => setTimeout(later, seconds * 1000));
    const [frames, scripts] = (await page.evaluate(() => [window.frameTimes, window.scriptTimes])).map((times) => times.sort((a, b) => a - b));
    const took = (Date.now() - began) / 1000;
    const end = await heap();
    const real = await feed.stop();
    const [p50, p95, p99, most] = [0.5, 0.95, 0.99, 1].map((part) => pick(frames, part).toFixed(1));
    console.log(`| ${Math.round(real)} | ${(frames.length / took).toFixed(0)} | ${p50} | ${p95} | ${p99} | ${most} | ${pick(scripts, 0.5).toFixed(1)} | ${pick(scripts, 0.95).toFixed(1)} | ${before.toFixed(1)} | ${end.toFixed(1)} |`);
  }
  await gateway.end('SIGTERM');
} finally {
  await over();
}
process.exit(0);
