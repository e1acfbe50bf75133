// Checks that frontend/dist is what a build of these sources yields, byte by byte. Compressed files are compared
// after decompression, since other versions of Node may compress differently.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { build } from 'vite';

const [there = join(import.meta.dirname, '../dist')] = process.argv.slice(2);
const fresh = mkdtempSync(join(tmpdir(), 'zonewire-page-'));
const plain = { gz: gunzipSync, br: brotliDecompressSync };

function files(folder) {
  const all = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((it) => it.isFile());
  return new Map(all.map((it) => {
    const path = relative(folder, join(it.parentPath, it.name));
    const bytes = readFileSync(join(folder, path));
    return [path, (plain[path.split('.').at(-1)] ?? ((same) => same))(bytes)];
  }));
}

try {
  const types = spawnSync(process.execPath, [join(import.meta.dirname, 'node_modules/typescript/bin/tsc'), '--noEmit', '-p', import.meta.dirname], { stdio: 'inherit' });
  if (types.status !== 0) process.exit(1);
  const { output } = await build({ root: import.meta.dirname, logLevel: 'warn', build: { outDir: relative(import.meta.dirname, fresh), emptyOutDir: true } });
  const [made, kept] = [files(fresh), files(there)];
  const wrong = [...new Set([...made.keys(), ...kept.keys()])].filter((path) => !made.has(path) || !kept.has(path) || !made.get(path).equals(kept.get(path)));
  if (wrong.length > 0) {
    console.error(`frontend/dist is not what its sources give: ${wrong.filter((path) => !/\.(gz|br)$/.test(path)).sort().join(', ')}. Run: npm --prefix frontend/dashboard run build`);
    process.exitCode = 1;
  } else {
    // What a browser reads at its first visit: the page, the files that it names, and their imports; then the chart,
    // and the ticket if the user may place orders.
    const chunks = new Map(output.filter((it) => it.type === 'chunk').map((it) => [it.fileName, it]));
    const named = (name) => [...chunks.values()].find((it) => it.name === name) ?? (() => { throw new Error(`there is no ${name} in the build`); })();
    const withAll = (chunk, all = new Set(['index.html', 'mark.svg'])) => {
      if (all.has(chunk.fileName)) return all;
      for (const path of [chunk.fileName, ...(chunk.viteMetadata?.importedCss ?? [])]) all.add(path);
      for (const path of chunk.imports) withAll(chunks.get(path), all);
      return all;
    };
    const sum = (paths, ending) => [...paths].reduce((all, path) => all + readFileSync(join(there, path + ending)).length, 0);
    const paint = withAll(named('index'));
    const ordering = withAll(named('ticket'), new Set(paint));
    const cases = [
      ['to the first paint', paint, 40_000],
      ['with the ticket', ordering, 40_000],
      ['all of the first visit', withAll(named('chart'), new Set(paint)), 60_000],
      ['with the ticket', withAll(named('chart'), new Set(ordering)), 60_000],
    ];
    console.log(`${made.size} files are as built. Bytes in gzip, and in brotli: ${cases.map(([what, paths]) => `${what} ${sum(paths, '.gz').toLocaleString('en')}, ${sum(paths, '.br').toLocaleString('en')}`).join('; ')}`);
    for (const [what, paths, most] of cases) {
      if (sum(paths, '.gz') < most) continue;
      console.error(`${what}: that is not below ${most.toLocaleString('en')} bytes in gzip`);
      process.exitCode = 1;
    }
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
