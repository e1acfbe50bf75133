// Helpers of the page's tests: real gateways, a real Redis, nginx, one browser, and publishers.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const require = createRequire(import.meta.url);
export const binary = process.env.ZONEWIRE_BIN ?? resolve(import.meta.dirname, '../../../target/debug/zonewire');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const running = new Set();
const folders = new Set();

/** Polls until a condition holds, and returns its value. */
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

/** A program that runs until it is ended, or the tests are over. */
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
  /** Starts it again at the same address. */
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
  publish(zone, prices) { return this.send('POST', `api/zones/${zone}/prices`, prices); }
  tell(type, events) { return this.send('POST', `api/events/${type}`, events); }
  async send(method, path, body) {
    const answer = await fetch(this.url + path, { method, headers: { 'content-type': 'application/json' }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  }
  async get(path) { return (await fetch(this.url + path)).json(); }
}

/** Runs the gateway's program to its end, and returns its output. */
const cli = (args, env = {}) => execFileSync(binary, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], env: { PATH: process.env.PATH, ...env } }).trim();

/** A configuration with authentication, and a function that makes tokens for it. */
export class Access {
  dir = folder();
  config = join(this.dir, 'zonewire.toml');
  constructor(...more) { this.operator = cli(['config', 'init', this.dir, ...more]); }
  token(subject, ...more) { return cli(['token', 'mint', '--config', this.config, '--subject', subject, ...more]); }
  revoke(gateway, subject) { return cli(['token', 'revoke', '--url', gateway.url, '--subject', subject], { ZONEWIRE_TOKEN: this.operator }); }
}

/** A stand-in for an exchange, which speaks the protocol of a real one. */
export class Exchange {
  port = 0;
  static async start(...args) {
    const exchange = new Exchange();
    exchange.args = args;
    await exchange.start();
    return exchange;
  }
  /** Starts it again at the same address. */
  async start() {
    this.program = new Program(join(dirname(binary), 'zonewire-exchange'), ['--port', `${this.port}`, ...this.args]);
    const said = await until(() => /ws:\/\/127\.0\.0\.1:(\d+)/.exec(this.program.output), () => `an exchange: ${this.program.output}`);
    this.port = Number(said[1]);
  }
  /** The arguments of a gateway that uses it. */
  get settings() {
    const address = `127.0.0.1:${this.port}`;
    return ['--set', `feeds.exchanges=[{kind="binance",url="ws://${address}",api_url="http://${address}",symbols=["BTC-USDT"],types=["ticker","trade","orderbook","candle"],interval="1m"}]`];
  }
  end() { return this.program.end(); }
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

/** nginx in front of a gateway, which it serves below a path. */
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

/** Publishes this many prices per second for many keys of one zone, until stopped. */
export async function publishing(gateway, zone, keys, perSecond) {
  const decimals = 2;
  const level = Array.from({ length: keys }, (_, i) => 20 + (i % 50));
  const price = (i) => {
    level[i] += (Math.random() - 0.5) * 2;
    return { key: `NODE ${String(i).padStart(5, '0')}`, price: Number(level[i].toFixed(decimals)), energy: 30, congestion: Number((level[i] - 30).toFixed(decimals)) };
  };
  for (let i = 0; i < keys; i += 500) await gateway.publish(zone, Array.from({ length: Math.min(500, keys - i) }, (_, j) => price(i + j)));
  return paced(perSecond, (count) => gateway.publish(zone, Array.from({ length: count }, () => price(Math.floor(Math.random() * keys)))));
}

/** Publishes this many trades per second of one market, and its book, until stopped. */
export async function trading(gateway, perSecond) {
  const market = { exchange: 'desk', symbol: 'EUR-USD' };
  let [sequence, number] = [Date.now(), 0];
  const side = (sign) => Array.from({ length: 50 }, (_, i) => [(1.0875 + sign * (i + 1) * 0.0001).toFixed(4), String(1 + Math.floor(Math.random() * 100))]);
  const book = (kind, bids, asks) => {
    sequence += 1;
    return gateway.tell('orderbook', { ...market, kind, bids, asks, sequence, ...(kind === 'delta' ? { previousSequence: sequence - 1 } : {}) });
  };
  await book('snapshot', side(-1), side(1));
  await gateway.tell('trade', Array.from({ length: 300 }, () => ({ ...market, price: '1.0875', size: 1, side: 'buy' })));
  const changes = paced(50, async (count) => { for (let i = 0; i < count; i += 1) await book('delta', side(-1).slice(0, 5), side(1).slice(0, 5)); });
  const trades = paced(perSecond, (count) => gateway.tell('trade', Array.from({ length: count }, () => ({ ...market, price: (1.0875 + Math.random() * 0.001).toFixed(4), size: 1 + (number += 1) % 100, side: number % 3 ? 'buy' : 'sell' }))));
  return { stop: async () => { await changes.stop(); return trades.stop(); } };
}

/** Sends what is due, this often per second, until stopped. */
function paced(perSecond, send) {
  const EVERY_MS = 50;
  let isOver = false;
  let sent = 0;
  const began = Date.now();
  const work = (async () => {
    while (!isOver) {
      const due = Math.min(1000, Math.floor(((Date.now() - began) / 1000) * perSecond) - sent);
      // A connection that the gateway closed at that moment gives no answer: repeat the request.
      if (due > 0) await send(due).catch((error) => { if (error.cause?.code !== 'UND_ERR_SOCKET') throw error; return send(due); });
      sent += Math.max(0, due);
      await new Promise((later) => setTimeout(later, EVERY_MS));
    }
  })();
  return { stop: async () => { isOver = true; await work; return (1000 * sent) / (Date.now() - began); } };
}

/** A client that connects, subscribes, and then reads nothing. */
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

/** With ZONEWIRE_TEST_DIST the page comes from a folder instead of the gateway, which need not be rebuilt. */
const dist = process.env.ZONEWIRE_TEST_DIST;
async function newest(route) {
  const path = new URL(route.request().url()).pathname.slice(1);
  if (path !== '') return route.fulfill({ path: join(dist, path), contentType: path.endsWith('.css') ? 'text/css' : 'text/javascript' });
  const response = await route.fetch();
  // Only for gateways: a copy that a test serves stays as it is.
  const isOfGateway = response.headers()['content-security-policy'] !== undefined;
  return route.fulfill(isOfGateway ? { response, body: readFileSync(join(dist, 'index.html')) } : { response });
}

let browser;
export async function tab({ width = 1440, height = 900, dark = false, reducedMotion = 'no-preference' } = {}) {
  browser ??= await chromium.launch({
    executablePath: process.env.ZONEWIRE_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      // Answers of the test itself have no address, and Chromium forbids such pages to reach this machine.
      '--disable-features=LocalNetworkAccessChecks'],
  });
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', reducedMotion });
  const page = await context.newPage();
  if (dist) await context.route(/:\d+\/(assets\/.*)?(\?.*)?$/, newest);
  page.setDefaultTimeout(15_000);
  // What must never occur: script errors, and violations of the content security policy.
  page.faults = [];
  page.motion = reducedMotion;
  page.on('pageerror', (error) => page.faults.push(error.stack ?? String(error)));
  page.on('console', (message) => {
    const text = message.text();
    if (message.type() === 'error' && !/Failed to load resource|WebSocket connection to .* failed/.test(text)) page.faults.push(text);
  });
  return page;
}

/** Goes to an empty page of the gateway's origin, which has the same permissions as the page. */
export async function blank(page, gateway) {
  const url = `${gateway.url}blank`;
  await page.route(url, (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html>' }));
  await page.goto(url);
}

/** The findings of axe, one per line. */
export async function violations(page) {
  // Flashes and opening dialogs have other colours for a moment. What opens while axe runs must not move either,
  // so motion is off until it has finished.
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
