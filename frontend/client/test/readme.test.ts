// What README.md shows works, word for word but for the gateway's port.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { transform } from 'esbuild';
import { Gateway, noGateway } from './support/real.js';

/** What each of them prints, in their order; null where another test uses what it makes. */
const EXPECTED: RegExp[] = [
  /^Connected\.\n(.*\n)*WESTERN HUB \d/m,
  /^open$/m,
  /^latest: WESTERN HUB [\d.]+ 2(.*\n)+.*(late|ms old)$/m,
  /^10 entries$/m,
  /^Verbunden\.$/m,
  /^open$/m,
  /^failed 404 not_found: there is nothing at this address$/m,
  /^Connected\.$/m,
  /^WESTERN HUB [\d.]+$/m,
  /^placed [0-9a-f-]{36}\nrouting 10\n(.*\n)*confirmed 100\ndone: \w+$/m,
  /^<section><p role="status">Connected\.<\/p><ul>(<li>.* [\d.-]+<\/li>)+<\/ul><\/section>$/m,
  /^Connected\. [1-9]\d* keys$/m,
  /^event:ticker:binance:\*$/m,
  /^no such channel$/m,
];

/** What a page, a newer Node, or the reader's own program has. */
const AROUND = `
import { WebSocket } from 'ws';
globalThis.WebSocket ??= WebSocket;
const { fetch } = globalThis;
globalThis.fetch = (url, init) => (url === '/token' ? new Response('a.b.c') : fetch(url, init));
`;
const A_BUTTON = 'globalThis.document = { querySelector: () => ({ addEventListener() {} }) };';
const AROUND_PAGE = `
import { Window } from 'happy-dom';
import { createElement } from 'react';
import { connect } from 'zonewire';
const window = new Window();
Object.assign(globalThis, { window, document: window.document });
globalThis.navigator ??= window.navigator;
const { createRoot } = await import('react-dom/client');
const { Prices } = await import('#SNIPPET');
const place = window.document.createElement('div');
createRoot(place).render(createElement(Prices, { client: connect('http://127.0.0.1:8080'), zone: 'pjm' }));
setInterval(() => console.log(place.innerHTML), 20);
`;

const blocks = [...readFileSync('README.md', 'utf8').matchAll(/^```(jsx?|ts)\n([^]*?)^```$/gm)].map(([, language, code]) => ({ language, code: code! }));

/** Runs until it has printed what it should. */
const run = (file: string, expected: RegExp) =>
  new Promise<void>((resolve, reject) => {
    const child = spawn(process.execPath, ['--unhandled-rejections=strict', file], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let isDone = false;
    const look = (text: string) => {
      output += text;
      if (isDone || !expected.test(output)) return;
      isDone = true;
      child.kill();
    };
    const timer = setTimeout(() => child.kill(), 20_000);
    child.stdout.setEncoding('utf8').on('data', look);
    child.stderr.setEncoding('utf8').on('data', look);
    child.on('exit', (code) => {
      clearTimeout(timer);
      if (isDone && !code) resolve();
      else reject(new Error(`${file} printed, instead of ${expected}:\n${output}`));
    });
  });

test('README.md names tests that there are', () => {
  const tests = readdirSync('test').filter((name) => name.endsWith('.test.ts')).map((name) => readFileSync(`test/${name}`, 'utf8')).join('');
  const [, table] = /^What is said of zonewire[^]*?\n\n([^]*?)\n\n/m.exec(readFileSync('README.md', 'utf8'))!;
  const named = [...table!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
  assert.ok(named.length >= 10);
  assert.deepEqual(named.filter((name) => !tests.includes(`test('${name}'`)), []);
});

describe('README.md', { skip: noGateway, concurrency: 2 }, async () => {
  let gateway: Promise<Gateway> | undefined;
  test('shows nothing that is not run', () => assert.equal(blocks.length, EXPECTED.length));
  for (const [index, { language, code }] of blocks.entries())
    test(`snippet ${index + 1}: ${code.split('\n').find((line) => !line.startsWith('import') && line.trim())}`, async () => {
      gateway ??= Gateway.start('demo', '--storage', 'memory', '--interval-ms', '100', '--set', 'orders.paper.failure_rate=0');
      const { port } = await gateway;
      const write = (name: string, text: string) => {
        const file = fileURLToPath(new URL(`readme-${index}${name}.mjs`, import.meta.url));
        writeFileSync(file, text.replaceAll(':8080', `:${port}`));
        return file;
      };
      const { code: js } = await transform(code, { loader: 'tsx', jsx: 'automatic' });
      let file: string;
      if (language === 'jsx') {
        const snippet = write('-snippet', js);
        file = write('', `${AROUND}${AROUND_PAGE.replace('#SNIPPET', snippet)}`);
      } else {
        const more = language === 'ts' ? `;import { connect as c } from 'zonewire'; c('http://127.0.0.1:8080').subscribe('nothing').on('end', () => console.log('no such channel'));` : '';
        // What an `import` brings is there before the rest runs.
        file = write('', `import './readme-${index}-around.mjs';\n${js}${more}`);
        write('-around', AROUND + (code.includes('document') ? A_BUTTON : ''));
      }
      await run(file, EXPECTED[index]!);
    });
});
