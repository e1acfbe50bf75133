// Real gateways, a real Redis, and a proxy between them and the client that does what networks do.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, connect as dial, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';

import { WebSocket } from 'ws';
import { connect, type ClientOptions, type Clock } from 'zonewire';

const binary = process.env.ZONEWIRE_BIN ?? path.resolve('../../target/debug/zonewire');

/** Why tests with a gateway cannot run; false where they can. */
export const noGateway = (() => {
  if (existsSync(binary)) return false;
  if (process.env.ZONEWIRE_TEST_REQUIRE_GATEWAY) throw new Error(`there is no gateway at ${binary}; ZONEWIRE_BIN says where it is`);
  return `there is no gateway at ${binary}: cargo build, or ZONEWIRE_BIN`;
})();

const hasRedis = process.env.PATH!.split(':').some((folder) => existsSync(`${folder}/redis-server`));

if (!hasRedis && process.env.ZONEWIRE_TEST_REQUIRE_REDIS) throw new Error('there is no redis-server');

/** Why tests with Redis cannot run; false where they can. */
export const noRedis = noGateway || (hasRedis ? false : 'there is no redis-server');

const running = new Set<ChildProcess>();
const undo: (() => void)[] = [];
after(() => {
  for (const child of running) child.kill('SIGKILL');
  for (const one of undo) one();
});

/** Asks until it is so. */
export const until = async (isSo: () => unknown, what: string | (() => string), withinMs = 20_000) => {
  const deadline = Date.now() + withinMs;
  for (;;) {
    try {
      if (await isSo()) return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    if (Date.now() > deadline) throw new Error(`it never came to be: ${typeof what === 'string' ? what : what()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

const freePort = () =>
  new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });

/** A program that runs until the tests are over, or it is killed; its output is shown where it fails. */
class Program {
  output = '';
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcess;

  constructor(command: string, args: string[]) {
    this.#child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH } });
    running.add(this.#child);
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.setEncoding('utf8').on('data', (text) => (this.output = (this.output + text).slice(-20_000)));
    this.ended = new Promise((resolve) =>
      this.#child.on('exit', (code) => {
        running.delete(this.#child);
        resolve(code);
      }),
    );
  }
  kill(signal: NodeJS.Signals) {
    this.#child.kill(signal);
    return this.ended;
  }
  signal(signal: NodeJS.Signals) {
    this.#child.kill(signal);
  }
}

/** Runs the program to its end; what it printed. */
const cli = (args: string[], env: Record<string, string> = {}) =>
  execFileSync(binary, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH, ...env } }).trim();

/** A configuration with authentication, as `zonewire config init` writes it, and what makes tokens and keys for it. */
export class Access {
  readonly #dir = mkdtempSync(path.join(tmpdir(), 'zonewire-access-'));
  readonly config = path.join(this.#dir, 'zonewire.toml');
  /** The key of an operator. */
  readonly operator: string;

  constructor(...more: string[]) {
    undo.push(() => rmSync(this.#dir, { recursive: true, force: true }));
    this.operator = cli(['config', 'init', this.#dir, ...more]);
  }
  /** A gateway that asks for tokens, and takes none a moment longer than it is valid. */
  start = (...args: string[]) => Gateway.start('serve', '--config', this.config, '--storage', 'memory', '--set', 'auth.leeway_s=0', ...args);
  token = (subject: string, ...more: string[]) => cli(['token', 'mint', '--config', this.config, '--subject', subject, ...more]);
  key = (subject: string, ...more: string[]) => cli(['key', 'make', '--config', this.config, '--subject', subject, ...more]);
  revoke = (gateway: Gateway, ...what: string[]) => cli(['token', 'revoke', '--url', gateway.url, ...what], { ZONEWIRE_TOKEN: this.operator });
  get keys() {
    return path.join(this.#dir, 'keys.toml');
  }
}

export class Gateway {
  #program!: Program;
  port = 0;

  static async start(...args: string[]) {
    const gateway = new Gateway();
    gateway.args = args;
    await gateway.start();
    return gateway;
  }
  args: string[] = [];

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }
  /** Starts it; again at the same address. */
  async start() {
    const [command, ...args] = this.args;
    this.#program = new Program(binary, [command!, '--listen', `127.0.0.1:${this.port}`, ...args]);
    await until(
      () => {
        const address = / ready address=\S+:(\d+)/.exec(this.#program.output);
        if (address) this.port = Number(address[1]);
        return address;
      },
      () => `a gateway that is ready: ${this.#program.output}`,
    );
  }
  kill = (signal: NodeJS.Signals = 'SIGKILL') => this.#program.kill(signal);
  signal = (signal: NodeJS.Signals) => this.#program.signal(signal);
  get log() {
    return this.#program.output;
  }

  /** What those show who publish. */
  token = '';

  async publish(zone: string, ...prices: object[]) {
    const answer = await fetch(`${this.url}/api/zones/${zone}/prices`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(this.token && { authorization: `Bearer ${this.token}` }) },
      body: JSON.stringify(prices),
    });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  }
  async get(path: string) {
    return (await (await fetch(this.url + path)).json()) as any;
  }
}

export class Redis {
  #program!: Program;
  port = 0;
  readonly #dir = mkdtempSync(path.join(tmpdir(), 'zonewire-redis-'));

  static async start() {
    const redis = new Redis();
    redis.port = await freePort();
    undo.push(() => rmSync(redis.#dir, { recursive: true, force: true }));
    await redis.start();
    return redis;
  }
  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }
  async start() {
    this.#program = new Program('redis-server', [
      '--port', `${this.port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'yes', '--appendfsync', 'always', '--dir', this.#dir,
    ]);
    await until(() => /Ready to accept connections/.test(this.#program.output), () => `Redis: ${this.#program.output}`);
  }
  kill = () => this.#program.kill('SIGKILL');
}

/** Carries bytes to a gateway until it is told to do worse. */
export class Proxy {
  readonly #server: Server;
  readonly #pairs = new Set<[Socket, Socket]>();
  /** So many connections are refused. */
  refuses = 0;
  /** After so many bytes more from the gateway the connection breaks, in the middle of whatever that is. */
  bytesLeft = Infinity;
  #isStalled = false;
  port = 0;

  constructor(readonly to: () => number) {
    this.#server = createServer((client) => {
      if (this.refuses > 0) {
        this.refuses--;
        client.resetAndDestroy();
        return;
      }
      const gateway = dial(this.to(), '127.0.0.1');
      const pair: [Socket, Socket] = [client, gateway];
      this.#pairs.add(pair);
      const end = () => {
        this.#pairs.delete(pair);
        client.destroy();
        gateway.destroy();
      };
      for (const socket of pair) socket.on('error', end).on('close', end);
      client.on('data', (bytes) => void gateway.write(bytes));
      gateway.on('data', (bytes) => {
        if (this.bytesLeft < bytes.length) {
          client.write(bytes.subarray(0, this.bytesLeft), end);
          this.bytesLeft = Infinity;
        } else {
          this.bytesLeft -= bytes.length;
          client.write(bytes);
        }
      });
      if (this.#isStalled) this.#stall(pair);
    });
    undo.push(() => this.close());
  }
  async listen() {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.port = (this.#server.address() as AddressInfo).port;
    return this;
  }
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }
  #stall([client, gateway]: [Socket, Socket]) {
    client.pause();
    gateway.pause();
  }
  /** Connections stay open, and nothing comes through any more: they are half-open for good. */
  stall() {
    this.#isStalled = true;
    for (const pair of this.#pairs) this.#stall(pair);
  }
  /** New connections are as they should be. */
  heal() {
    this.#isStalled = false;
    this.refuses = 0;
    this.bytesLeft = Infinity;
  }
  close() {
    this.cut();
    this.#server.close();
  }
}

/** Goes so many times as fast as time does, so that waits of seconds take milliseconds. */
export const fastClock = (times: number): Clock => {
  const began = Date.now();
  return {
    now: () => began + (performance.timeOrigin + performance.now() - began) * times,
    setTimeout: (then, ms) => setTimeout(then, ms / times),
    clearTimeout: (timer) => clearTimeout(timer as never),
  };
};

const clients = new Set<ReturnType<typeof connect>>();
after(() => clients.forEach((client) => client.close()));

/** A client as in Node; it is closed when the tests are over. */
export const follow = (url: Parameters<typeof connect>[0], options: ClientOptions = {}) => {
  const client = connect(url, { WebSocket: WebSocket as unknown as ClientOptions['WebSocket'], ...options });
  clients.add(client);
  client.on('state', ({ state }) => state === 'closed' && clients.delete(client));
  return client;
};

/** Numbers from a seed, from 0 to 1. */
export const seeded = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
};
