// Runs after a build, for embedding into the gateway. Each file is precompressed, and files.rs lists all files
// with their types and hashes, so that cargo needs neither Node nor a build script.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, posix, relative, sep } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import type { Plugin } from 'vite';

const KINDS: Record<string, string> = {
  css: 'text/css; charset=utf-8',
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};

export function embed(): Plugin {
  let folder = '';
  return {
    name: 'embed',
    apply: 'build',
    configResolved(config) { folder = join(config.root, config.build.outDir); },
    closeBundle() {
      const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((it) => it.isFile())
        .map((it) => relative(folder, join(it.parentPath, it.name)).split(sep).join(posix.sep))
        .sort();
      const files = paths.map((path) => {
        const bytes = readFileSync(join(folder, path));
        const kind = KINDS[path.split('.').at(-1)!];
        if (kind === undefined) throw new Error(`${path} is of a kind that the gateway does not know`);
        writeFileSync(join(folder, `${path}.gz`), gzipSync(bytes, { level: 9 }));
        writeFileSync(join(folder, `${path}.br`), brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } }));
        const tag = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
        return `    File {
        path: "${path}",
        kind: "${kind}",
        tag: "${tag}",
        plain: include_bytes!("${path}"),
        gzip: include_bytes!("${path}.gz"),
        brotli: include_bytes!("${path}.br"),
    },
`;
      });
      writeFileSync(join(folder, 'files.rs'), `// Made by \`npm run build\` in frontend/dashboard: the files of the page.
&[
${files.join('')}]
`);
    },
  };
}
