// What must hold of the package besides its tests: types, packaging, and the size of the core.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';

process.chdir(path.dirname(new URL('.', import.meta.url).pathname));

const CORE_BYTES_MAX = 4_000;

const run = (what, ...args) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) {
    process.stdout.write(stdout + stderr);
    console.error(`error: ${what}`);
    process.exit(1);
  }
  console.log(`${what}: ok`);
};

run('build, with its types', 'scripts/build.mjs');
run('types of the tests, as users have them', 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.test.json');
run('publint', 'node_modules/publint/src/cli.js', '--strict');
run('arethetypeswrong', 'node_modules/@arethetypeswrong/cli/dist/index.js', '--pack', '.', '--profile', 'node16');

for (const name of ['index', 'orders', 'react', 'sse', 'vue']) {
  const { length } = gzipSync(readFileSync(`dist/${name}.js`), { level: 9 });
  console.log(`${name}.js: ${length} bytes gzipped`);
  if (name === 'index' && length > CORE_BYTES_MAX) {
    console.error(`error: the core is larger than ${CORE_BYTES_MAX} bytes`);
    process.exit(1);
  }
}
