import { defineConfig, type Plugin } from 'vite';
import { embed } from './embed.ts';

// The gateway that `npm run dev` uses.
const gateway = process.env.ZONEWIRE_URL ?? 'http://127.0.0.1:8080';

// The chart has one stepped line. The parts of uPlot that draw other lines and join tables are left out of the
// page: after these replacements nothing uses them.
const UNUSED = ['(paths.linear  = linear);', '(paths.bars    = bars);', '(paths.spline  = monotoneCubic);', 'uPlot.join = join;', 'linear() '];
const leaner: Plugin = {
  name: 'leaner',
  apply: 'build',
  transform(code, id) {
    if (!/uPlot\.esm\.js$/.test(id)) return null;
    for (const line of UNUSED) {
      if (code.split(line).length !== 2) throw new Error(`uPlot is another one: ${line} is not in it once`);
      code = code.replace(line, line.startsWith('linear') ? 'null ' : '');
    }
    return { code, map: null };
  },
};

export default defineConfig({
  // Works below any path at which the gateway is served.
  base: './',
  resolve: { alias: { 'zonewire/events': new URL('../client/src/events.ts', import.meta.url).pathname, zonewire: new URL('../client/src/index.ts', import.meta.url).pathname } },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [leaner, embed()],
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: ['chrome123', 'firefox128', 'safari17.5'],
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    // One file for the first paint; the rest is loaded on demand.
    rolldownOptions: { output: { manualChunks: (id) => (/uplot|views.(bodies|candle-chart|chart|connection|connections|dead-letters|dialogs|events|gateway|nodes|orders|pager|rate|registries|settings|story|ticket)\.|src.(book|candles|events|fleet|listen|orders|records|registry|stats|tape|tell)\./.test(id) ? null : 'index') } },
  },
  server: {
    proxy: Object.fromEntries(
      ['/api', '/ws', '/health', '/metrics', '/openapi.json', '/asyncapi.json'].map((path) => [path, { target: gateway, ws: path === '/ws', changeOrigin: true, headers: { origin: gateway } }]),
    ),
  },
});
