// The sizes of the libraries that README.md compares, including this one, with everything that a
// page needs.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';

import { build } from 'esbuild';

const WHAT = {
  zonewire: 'export { connect } from "zonewire"',
  'centrifuge@5.8.0': 'export { Centrifuge } from "centrifuge"',
  'socket.io-client@4.8.4': 'export { io } from "socket.io-client"',
  'pusher-js@8.6.0': 'export { default } from "pusher-js"',
  'phoenix@1.8.16': 'export { Socket } from "phoenix"',
  'partysocket@1.3.0': 'export { default } from "partysocket"',
};

const folder = mkdtempSync(path.join(tmpdir(), 'zonewire-sizes-'));
try {
  const here = path.dirname(path.dirname(new URL(import.meta.url).pathname));
  const packages = Object.keys(WHAT).map((name) => (name === 'zonewire' ? here : name));
  execFileSync('npm', ['install', '--prefix', folder, '--no-audit', '--no-fund', '--ignore-scripts', '--install-links', ...packages], { stdio: ['ignore', 'ignore', 'inherit'] });
  for (const [name, contents] of Object.entries(WHAT)) {
    const { outputFiles } = await build({ stdin: { contents, resolveDir: folder }, bundle: true, minify: true, format: 'esm', platform: 'browser', write: false });
    console.log(`${name}: ${(gzipSync(outputFiles[0].contents, { level: 9 }).length / 1_000).toFixed(1)} kB`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
