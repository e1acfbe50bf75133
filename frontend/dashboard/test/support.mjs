// What tests of the page need: real gateways, a real Redis, nginx, one browser, and somebody who publishes.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const require = createRequire(import.meta.url);
export const binary = process.env.ZONEWIRE_BIN ?? resolve(import.meta.dirname, '../../../target/debug/zonewire');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const running = new Set();
const folders = new Set();

/** Asks until it is so, and gives what it was given. */
export async function until(isSo, what, withinMs = 15_000) {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const found = await Promise.resolve(isSo()).catch((error) => { if (Date.now() > deadline) throw error; });
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`it never came to be: ${typeof what === 'function' ? await what() : what}`);
    await new Promise((later) => setTimeout(later, 20));
  }
}

export const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

export function folder() {
  const made = mkdtempSync(join(tmpdir(), 'zonewire-page-'));
  folders.add(made);
  return made;
}

/** A program that runs until it is ended, or all is over. */
class Program {
  output = '';
  constructor(command, args, more = {}) {
    this.child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: `${process.env.PATH}:/usr/sbin` }, ...more });
    running.add(this.child);
    for (const stream of [this.child.stdout, this.child.stderr]) stream.setEncoding('utf8').on('data', (text) => { this.output = (this.output + text).slice(-20_000); });
    this.ended = new Promise((resolve) => this.child.on('close', () => { running.delete(this.child); resolve(); }));
  }
  signal(signal) { this.child.kill(signal); }
  end(signal = 'SIGKILL') { this.child.kill('SIGCONT'); this.child.kill(signal); return this.ended; }
}

export class Gateway {
  port = 0;
  static async start(...args) {
    const gateway = new Gateway();
    gateway.args = args;
    await gateway.start();
    return gateway;
  }
  get url() { return `http://127.0.0.1:${this.port}/`; }
  /** Again at the same address, after it was ended. */
  async start() {
    const [command, ...args] = this.args;
    this.program = new Program(binary, [command, '--listen', `127.0.0.1:${this.port}`, ...args]);
    await until(() => {
      const ready = / ready address=\S+:(\d+)/.exec(this.program.output);
      if (ready) this.port = Number(ready[1]);
      return ready;
    }, () => `a gateway that is ready: ${this.program.output}`);
  }
  signal(signal) { this.program.signal(signal); }
  end(signal) { return this.program.end(signal); }
  async publish(zone, prices) {
    const answer = await fetch(`${this.url}api/zones/${zone}/prices`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(prices) });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  }
  async get(path) { return (await fetch(this.url + path)).json(); }
}

/** Runs the gateway's program to its end; what it printed. */
const cli = (args, env = {}) => execFileSync(binary, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], env: { PATH: process.env.PATH, ...env } }).trim();

/** A configuration with authentication, and what makes tokens for it. */
export class Access {
  dir = folder();
  config = join(this.dir, 'zonewire.toml');
  constructor(...more) { this.operator = cli(['config', 'init', this.dir, ...more]); }
  token(subject, ...more) { return cli(['token', 'mint', '--config', this.config, '--subject', subject, ...more]); }
  revoke(gateway, subject) { return cli(['token', 'revoke', '--url', gateway.url, '--subject', subject], { ZONEWIRE_TOKEN: this.operator }); }
}

export class Redis {
  static async start() {
    const redis = new Redis();
    [redis.port, redis.dir] = [await freePort(), folder()];
    await redis.start();
    return redis;
  }
  get url() { return `redis://127.0.0.1:${this.port}`; }
  async start() {
    this.program = new Program('redis-server', ['--port', `${this.port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'yes', '--dir', this.dir]);
    await until(() => /Ready to accept connections/.test(this.program.output), () => `Redis: ${this.program.output}`);
  }
  end() { return this.program.end(); }
}

/** nginx before a gateway, which it serves below a path. */
export async function nginx(gateway, path) {
  const [dir, port] = [folder(), await freePort()];
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${kind};`).join(' ');
  writeFileSync(join(dir, 'nginx.conf'), `
    daemon off; master_process off; pid nginx.pid; error_log stderr warn; events {}
    http { access_log off; ${kinds} server { listen 127.0.0.1:${port}; location ${path} {
      proxy_pass http://127.0.0.1:${gateway.port}; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
    } } }`);
  const program = new Program('nginx', ['-p', dir, '-e', 'stderr', '-c', 'nginx.conf']);
  const url = `http://127.0.0.1:${port}${path}/`;
  await until(() => fetch(url).then((it) => it.ok), () => `nginx: ${program.output}`);
  return url;
}

/** Many keys of one zone, so many prices a second, until it is stopped. */
export async function publishing(gateway, zone, keys, perSecond) {
  const decimals = 2;
  const level = Array.from({ length: keys }, (_, i) => 20 + (i % 50));
  const price = (i) => {
    level[i] += (Math.random() - 0.5) * 2;
    return { key: `NODE ${String(i).padStart(5, '0')}`, price: Number(level[i].toFixed(decimals)), energy: 30, congestion: Number((level[i] - 30).toFixed(decimals)) };
  };
  for (let i = 0; i < keys; i += 500) await gateway.publish(zone, Array.from({ length: Math.min(500, keys - i) }, (_, j) => price(i + j)));
  const EVERY_MS = 50;
  let isOver = false;
  let sent = 0;
  const began = Date.now();
  const work = (async () => {
    while (!isOver) {
      const due = Math.floor(((Date.now() - began) / 1000) * perSecond) - sent;
      if (due > 0) await gateway.publish(zone, Array.from({ length: Math.min(due, 1000) }, () => price(Math.floor(Math.random() * keys))));
      sent += Math.max(0, Math.min(due, 1000));
      await new Promise((later) => setTimeout(later, EVERY_MS));
    }
  })();
  return { stop: async () => { isOver = true; await work; return (1000 * sent) / (Date.now() - began); } };
}

/** Somebody who connects, subscribes, and then takes nothing of what comes. */
export async function slowReader(gateway, path) {
  const socket = connect(gateway.port, '127.0.0.1');
  const ended = new Promise((resolve) => socket.on('close', resolve));
  socket.on('error', () => undefined);
  socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${gateway.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2xvdyBzbG93IHNsb3chIQ==\r\n\r\n`);
  await new Promise((resolve) => socket.once('data', resolve));
  socket.pause();
  return { end: () => { socket.destroy(); return ended; } };
}

// The browser

let browser;
export async function tab({ width = 1440, height = 900, dark = false, reducedMotion = 'no-preference' } = {}) {
  browser ??= await chromium.launch({
    executablePath: process.env.ZONEWIRE_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', reducedMotion });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  // What should never be: errors of scripts, and things that the policy forbids.
  page.faults = [];
  page.motion = reducedMotion;
  page.on('pageerror', (error) => page.faults.push(error.stack ?? String(error)));
  page.on('console', (message) => {
    const text = message.text();
    if (message.type() === 'error' && !/Failed to load resource|WebSocket connection to .* failed/.test(text)) page.faults.push(text);
  });
  return page;
}

/** What axe finds wrong, in a line each. */
export async function violations(page) {
  // Flashes and dialogs that are on their way have colours of their own for a moment. What opens while axe looks
  // must not move either, so motion is off until it is through.
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await page.evaluate(() => document.getAnimations().forEach((it) => it.finish()));
  await page.evaluate(axe);
  const { violations: found } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  await page.emulateMedia({ reducedMotion: page.motion });
  return found.map((it) => `${it.id}: ${it.help}: ${it.nodes.slice(0, 3).map((node) => `${node.target.join(' ')} (${node.any[0]?.message ?? node.all[0]?.message ?? ''})`).join('; ')}`);
}

export async function over() {
  await browser?.close();
  for (const child of running) { child.kill('SIGCONT'); child.kill('SIGKILL'); }
  for (const made of folders) rmSync(made, { recursive: true, force: true });
}

export const has = (program) => `${process.env.PATH}:/usr/sbin`.split(':').some((dir) => existsSync(join(dir, program)));
