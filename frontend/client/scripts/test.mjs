// Runs the tests against dist, which is what users run. Arguments select test files by name.

import { readdirSync, rmSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { build } from 'esbuild';

process.chdir(path.dirname(new URL('.', import.meta.url).pathname));

const wanted = process.argv.slice(2);
const tests = readdirSync('test').filter((name) => name.endsWith('.test.ts') && (!wanted.length || wanted.some((word) => name.includes(word))));
const outdir = `build/${process.pid}`;
await build({
  entryPoints: tests.map((name) => `test/${name}`),
  outdir,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  packages: 'external',
  format: 'esm',
  platform: 'node',
  target: 'node20',
  sourcemap: 'inline',
  logLevel: 'warning',
});
const { status } = spawnSync(
  process.execPath,
  ['--enable-source-maps', '--test', '--test-reporter=spec', '--test-concurrency=2', ...tests.map((name) => `${outdir}/${name.replace('.ts', '.mjs')}`)],
  { stdio: 'inherit' },
);
rmSync(outdir, { recursive: true });
process.exit(status ?? 1);
