// How many prices per second the library processes, compared with JSON.parse alone on the same texts: `npm run bench`.
// Both take turns in one run and are measured by CPU time, so that other load on the machine matters as little as
// possible.

import { connect } from '../dist/index.js';

const KEYS = 1_000;
const MESSAGES = 100_000;
const ROUNDS = 15;

const entry = (offset) => {
  const key = `NODE ${String(offset % KEYS).padStart(5, '0')}`;
  return JSON.stringify({
    type: 'price_update', channel: 'zone:pjm', offset, id: `640319ea8b914cb1b37a17ac4742b0ad-${offset}`, timestamp: new Date(1_795_000_000_000 + offset).toISOString(),
    key, price: 20 + (offset % 7_000) / 100, energy: 28.45, congestion: -9.66, loss: 0.93, market: 'RT5M', location: key,
  });
};

/** A client that is live in a zone, and a function that delivers a gateway's messages to it. */
const live = (options) => {
  let socket;
  class Socket {
    readyState = 1;
    constructor() { socket = this; }
    send(text) { this.asked = JSON.parse(text); }
    close() {}
  }
  const client = connect('http://gateway.test', { WebSocket: Socket, page: null, ...options });
  const sub = client.zone('pjm');
  return new Promise((resolve) => setImmediate(() => {
    const say = (data) => socket.onmessage({ data });
    say(JSON.stringify({ type: 'connection_established', connection_id: 'c', storage_backend: 'redis', state: 'healthy', heartbeat_interval_ms: 30_000, protocol: 1, timestamp: new Date().toISOString() }));
    say(JSON.stringify({ type: 'subscribed', id: socket.asked.id, channel: 'zone:pjm', epoch: 'e', offset: 0, top: 0, recovered: true, gap: 0 }));
    resolve({ client, sub, say });
  }));
};

const time = (act) => {
  const began = process.cpuUsage();
  act();
  const { user, system } = process.cpuUsage(began);
  return (user + system) / 1e6;
};
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

const { client, sub, say } = await live();
let sum = 0;
sub.on('entry', ({ price }) => { sum += price; });
const [alone, ours, ratios] = [[], [], []];
for (let round = 0, offset = 0; round < ROUNDS; round++) {
  const texts = Array.from({ length: MESSAGES }, () => entry(++offset));
  // Whoever is first may find a cold cache.
  const runs = [() => alone.push(time(() => { for (const text of texts) sum += JSON.parse(text).price; })), () => ours.push(time(() => { for (const text of texts) say(text); }))];
  if (round % 2) runs.reverse();
  for (const run of runs) run();
  ratios.push(alone.at(-1) / ours.at(-1));
}
if (sub.latest().size !== KEYS) throw new Error('prices are missing');
client.close();
const rate = (seconds) => Math.round(MESSAGES / median(seconds)).toLocaleString('en');
console.log(`JSON.parse alone ${rate(alone)} prices a CPU second, the library ${rate(ours)} prices: ${median(ratios).toFixed(2)} of it (${ROUNDS} rounds of ${MESSAGES.toLocaleString('en')}, ${entry(1).length} bytes each, Node ${process.versions.node})`);
