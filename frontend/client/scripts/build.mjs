// Builds dist: one ESM and one CommonJS file of each entry point, with their types beside them.

import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';

import { build } from 'esbuild';
import { minify } from 'terser';

process.chdir(path.dirname(import.meta.dirname ?? new URL('.', import.meta.url).pathname));

const { exports } = JSON.parse(readFileSync('package.json', 'utf8'));
const entryPoints = Object.values(exports).flatMap(({ import: one }) => (one ? `src/${path.basename(one.default, '.js')}.ts` : []));

rmSync('dist', { recursive: true, force: true });
for (const [format, extension] of [['esm', '.js'], ['cjs', '.cjs']])
  await build({
    absWorkingDir: process.cwd(), // esbuild would use the earlier one
    entryPoints,
    format,
    outdir: 'dist',
    outExtension: { '.js': extension },
    bundle: true,
    sourcemap: 'external',
    target: 'es2022',
    platform: 'neutral',
    external: ['react', 'vue'],
    logLevel: 'warning',
  });

// Terser's output is smaller than esbuild's, by about 150 bytes for the core.
for (const name of readdirSync('dist').filter((name) => /\.c?js$/.test(name))) {
  const { code, map } = await minify(readFileSync(`dist/${name}`, 'utf8'), {
    module: name.endsWith('.js'),
    toplevel: true,
    compress: { ecma: 2020, passes: 3, unsafe_arrows: true, hoist_props: true },
    sourceMap: { content: readFileSync(`dist/${name}.map`, 'utf8'), filename: name, url: `${name}.map` },
  });
  writeFileSync(`dist/${name}`, code);
  writeFileSync(`dist/${name}.map`, map);
}

// The compiler mirrors the folders of the sources; both become one folder. Node resolves the types of CommonJS
// separately.
const bin = path.join(path.dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc');
execFileSync(process.execPath, [bin, '-p', '.'], { stdio: 'inherit' });
for (const folder of ['dist/types/frontend/client/src', 'dist/types/docs/schema']) cpSync(folder, 'dist', { recursive: true });
rmSync('dist/types', { recursive: true });
mkdirSync('dist', { recursive: true });
for (const name of readdirSync('dist').filter((name) => name.endsWith('.d.ts'))) {
  const types = readFileSync(`dist/${name}`, 'utf8');
  writeFileSync(`dist/${name.replace('.d.ts', '.d.cts')}`, types.replace(/(from |import\()(['"])(\.[^'"]*)\.js\2/g, '$1$2$3.cjs$2'));
}
