// Checks the package beyond its tests: types, packaging, and the size of the core.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';

process.chdir(path.dirname(new URL('.', import.meta.url).pathname));

const CORE_BYTES_MAX = 4_096;

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
// README's programs, as users paste them into TypeScript files. Whether a page has the elements is not checked.
const pasted = 'build/readme';
rmSync(pasted, { recursive: true, force: true });
mkdirSync(pasted, { recursive: true });
const snippets = [...readFileSync('README.md', 'utf8').matchAll(/^```(jsx?|ts)\n([^]*?)^```$/gm)];
snippets.forEach(([, language, code], index) => writeFileSync(`${pasted}/${index + 1}.${language === 'jsx' ? 'tsx' : 'ts'}`, code));
writeFileSync(
  `${pasted}/tsconfig.json`,
  JSON.stringify({ extends: '../../tsconfig.test.json', compilerOptions: { strict: false, jsx: 'react-jsx', noUnusedLocals: false, rootDir: '.' }, include: ['.'] }),
);
run('types of what README shows', 'node_modules/typescript/bin/tsc', '-p', pasted);
run('publint', 'node_modules/publint/src/cli.js', '--strict');
run('arethetypeswrong', 'node_modules/@arethetypeswrong/cli/dist/index.js', '--pack', '.', '--profile', 'node16');

// What users see in their editors: every export, and each of its members, has a comment.
const silent = [];
for (const file of readdirSync('dist').filter((name) => name.endsWith('.d.ts') && name !== 'zonewire.d.ts')) {
  const lines = readFileSync(`dist/${file}`, 'utf8').split('\n');
  let isOpen = false; // within an exported interface
  for (const [index, line] of lines.entries()) {
    const isExported = /^export (declare )?(const|type|interface|class|function) (?!\{|\*)/.test(line);
    if (isExported) isOpen = /^export interface .*\{$/.test(line);
    else if (line === '}') isOpen = false;
    const isMember = isOpen && /^ {4}[\w[]/.test(line);
    if ((isExported || isMember) && !/\*\/$/.test(lines[index - 1] ?? '')) silent.push(`${file}:${index + 1}: ${line.trim()}`);
  }
}
if (silent.length > 0) {
  console.error(`error: no comment says what these are:\n${silent.join('\n')}`);
  process.exit(1);
}
console.log('comments on what is exported: ok');

for (const name of readdirSync('dist').filter((name) => name.endsWith('.js'))) {
  const { length } = gzipSync(readFileSync(`dist/${name}`), { level: 9 });
  console.log(`${name}: ${length} bytes gzipped`);
  if (name === 'index.js' && length > CORE_BYTES_MAX) {
    console.error(`error: the core is larger than ${CORE_BYTES_MAX} bytes`);
    process.exit(1);
  }
}
