// Whether frontend/dist is what a build of these sources gives, byte by byte. What is compressed is compared as it
// was before, since another version of Node may compress in another way.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix, relative } from 'node:path';
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
  await build({ root: import.meta.dirname, logLevel: 'warn', build: { outDir: relative(import.meta.dirname, fresh), emptyOutDir: true } });
  const [made, kept] = [files(fresh), files(there)];
  const wrong = [...new Set([...made.keys(), ...kept.keys()])].filter((path) => !made.has(path) || !kept.has(path) || !made.get(path).equals(kept.get(path)));
  if (wrong.length > 0) {
    console.error(`frontend/dist is not what its sources give: ${wrong.filter((path) => !/\.(gz|br)$/.test(path)).sort().join(', ')}. Run: npm --prefix frontend/dashboard run build`);
    process.exitCode = 1;
  } else {
    // What a browser reads at its first visit: the page, what that names, and what this imports.
    const first = new Set(['index.html']);
    for (const path of first) {
      const text = made.get(path).toString();
      for (const [, name] of text.matchAll(/(?:src="|href="|from\s*"|import\s*"|from\s*`|import\s*`)(\.\/[^"`]+)/g)) {
        const named = posix.join(posix.dirname(path), name);
        if (made.has(named)) first.add(named);
      }
    }
    const sum = (ending) => [...first].reduce((all, path) => all + readFileSync(join(there, path + ending)).length, 0);
    console.log(`${made.size} files are as built; at the first visit ${sum('.gz')} bytes in gzip, ${sum('.br')} in brotli`);
    if (sum('.gz') > 60_000) {
      console.error('that is more than 60,000 bytes');
      process.exitCode = 1;
    }
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
