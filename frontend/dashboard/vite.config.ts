import { defineConfig } from 'vite';
import { embed } from './embed.ts';

// Which gateway `npm run dev` shows.
const gateway = process.env.ZONEWIRE_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  // Below whatever path the gateway is served.
  base: './',
  resolve: { alias: { zonewire: new URL('../client/src/index.ts', import.meta.url).pathname } },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [embed()],
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: ['chrome123', 'firefox128', 'safari17.5'],
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    // One file for the first visit, whatever later ones share with it.
    rolldownOptions: { output: { manualChunks: (id) => (/views.(connections|dead-letters|dialogs|gateway|orders|pager|rate|settings|story|ticket)\.|src.(orders|stats)\./.test(id) ? null : 'index') } },
  },
  server: {
    proxy: Object.fromEntries(
      ['/api', '/ws', '/health', '/metrics', '/openapi.json', '/asyncapi.json'].map((path) => [path, { target: gateway, ws: path === '/ws', changeOrigin: true, headers: { origin: gateway } }]),
    ),
  },
});
