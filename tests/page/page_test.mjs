// Runs the page's script with a clock, a gateway and a document that are made up. Its first argument is the script.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import vm from 'node:vm';

const SCRIPT = readFileSync(process.argv[2], 'utf8');

// The page, opened on a gateway that has these zones.
class World {
  now = 1_800_000_000_000;
  timers = new Map();
  elements = new Map();
  sockets = [];
  zones = ['pjm', 'ercot'];
  isThere = true;
  isBusy = false;

  static async start(change = () => {}) {
    const world = new World();
    change(world);
    const element = () => ({
      hidden: true, textContent: '', rows: [],
      replaceChildren() {}, insertRow() { return { insertCell() {}, cells: [{}, {}, {}], dataset: {}, remove() {} }; },
    });
    world.context = vm.createContext({
      URL,
      Option: class {},
      document: {
        baseURI: 'http://gateway/',
        getElementById(id) {
          if (!world.elements.has(id)) world.elements.set(id, element());
          return world.elements.get(id);
        },
      },
      fetch: async (path) => {
        if (!world.isThere) throw new Error('Failed to fetch');
        const zones = world.zones.map((zone) => ({ zone }));
        if (world.isBusy) return { ok: false, status: 503 };
        return { ok: true, json: async () => (path === 'api/zones' ? { zones } : { storage_backend: 'redis', state: 'healthy' }) };
      },
      setTimeout: (act, ms) => world.timer(act, ms, null),
      setInterval: (act, ms) => world.timer(act, ms, ms),
      clearTimeout: (id) => world.timers.delete(id),
      WebSocket: class {
        static OPEN = 1;
        readyState = 0;
        sent = [];
        isClosed = false;
        constructor(url) { this.url = `${url}`; world.sockets.push(this); }
        send(text) { assert.equal(this.readyState, 1, 'an open socket'); this.sent.push(JSON.parse(text)); }
        close() { this.isClosed = true; }
      },
    });
    world.context.now = () => world.now;
    vm.runInContext('Date = { now }; Math.random = () => 0.5;', world.context);
    vm.runInContext(SCRIPT, world.context);
    await world.settle();
    return world;
  }

  timer(act, ms, every) {
    const id = {};
    this.timers.set(id, { act, at: this.now + ms, every });
    return id;
  }

  get socket() { return this.sockets.at(-1); }
  get state() { return this.elements.get('state').textContent; }
  get button() { return this.elements.get('again'); }

  async settle() { for (let i = 0; i < 20; i += 1) await null; }

  // Time in which the page runs.
  async pass(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      const [id, timer] = due;
      this.now = Math.max(this.now, timer.at);
      if (timer.every) timer.at = this.now + timer.every; else this.timers.delete(id);
      timer.act();
      await this.settle();
    }
    this.now = end;
  }

  // Time in which it does not.
  sleep(ms) { this.now += ms; }

  connect() {
    this.socket.readyState = 1;
    this.say({ type: 'connection_established', storage_backend: 'redis', state: 'healthy', heartbeat_interval_ms: 30000 });
    this.say({ type: 'subscribed', channel: 'zone:pjm', snapshot: true });
  }

  say(message) { this.socket.onmessage?.({ data: JSON.stringify(message) }); }
  end(code) { this.socket.readyState = 3; this.socket.onclose?.({ code, reason: '' }); }
}

const tests = {
  async 'a connection on which heartbeats come is left alone'() {
    const world = await World.start();
    world.connect();
    for (let i = 0; i < 20; i += 1) { await world.pass(30_000); world.say({ type: 'heartbeat' }); }
    assert.deepEqual([world.sockets.length, world.socket.sent, world.state], [1, [], 'connected']);
  },

  async 'a quiet connection is asked, and goes on if it answers'() {
    const world = await World.start();
    world.connect();
    for (let i = 0; i < 5; i += 1) {
      await world.pass(71_000);
      assert.equal(world.socket.sent.length, i + 1);
      world.say({ type: 'pong' });
    }
    assert.deepEqual([world.sockets.length, world.socket.sent[0], world.state], [1, { type: 'ping' }, 'connected']);
  },

  async 'one that does not answer is dead after 75 s, and another one is opened'() {
    const world = await World.start();
    world.connect();
    await world.pass(74_900);
    assert.equal(world.socket.isClosed, false);
    await world.pass(200);
    assert.equal(world.socket.isClosed, true);
    assert.equal(world.state, 'nothing was heard for too long, connecting again in 2 s');
    const dead = world.socket;
    await world.pass(1_600);
    assert.equal(world.sockets.length, 2);
    world.connect();
    assert.deepEqual([world.state, dead.onmessage, dead.onclose], ['connected', null, null]);
  },

  async 'so is one that never opens'() {
    const world = await World.start();
    await world.pass(82_000);
    assert.deepEqual([world.sockets.length, world.sockets[0].isClosed], [2, true]);
  },

  async 'a tab that slept asks first, whenever it fell asleep'() {
    for (let awake = 60_000; awake < 75_000; awake += 1_000) {
      const world = await World.start();
      world.connect();
      await world.pass(awake);
      world.sleep(3_600_000);
      await world.pass(0);
      assert.deepEqual([world.sockets.length, world.socket.isClosed], [1, false], `${awake}`);
      assert.deepEqual(world.socket.sent.at(-1), { type: 'ping' });
      // What came meanwhile, or the answer.
      world.say({ type: 'heartbeat' });
      await world.pass(60_000);
      assert.deepEqual([world.sockets.length, world.state], [1, 'connected'], `${awake}`);
    }
  },

  async 'a tab that slept on a dead connection finds out'() {
    const world = await World.start();
    world.connect();
    world.sleep(3_600_000);
    await world.pass(10_100);
    assert.equal(world.socket.isClosed, true);
  },

  async 'a tab whose ticks are always late finds out too'() {
    const world = await World.start();
    world.connect();
    for (let i = 0; i < 5; i += 1) { world.sleep(60_000); await world.pass(0); }
    assert.equal(world.sockets[0].isClosed, true);
  },

  async 'a clock that is set back does no harm, and hides no dead connection'() {
    const world = await World.start();
    world.connect();
    world.now -= 3_600_000;
    for (const timer of world.timers.values()) timer.at -= 3_600_000;
    await world.pass(5_100);
    world.say({ type: 'pong' });
    await world.pass(60_000);
    assert.deepEqual([world.sockets.length, world.state], [1, 'connected']);
    await world.pass(20_000);
    assert.equal(world.socket.isClosed, true);
  },

  async 'a short interval of heartbeats counts'() {
    const world = await World.start();
    world.connect();
    world.say({ type: 'connection_established', storage_backend: 'redis', state: 'healthy', heartbeat_interval_ms: 8000 });
    await world.pass(31_000);
    assert.equal(world.sockets[0].isClosed, true);
  },

  async 'five tries, each later, and then a button'() {
    const world = await World.start();
    world.connect();
    const waits = [];
    world.end(1006);
    for (let i = 0; i < 5; i += 1) {
      const [before, count] = [world.now, world.sockets.length];
      while (world.sockets.length === count) await world.pass(100);
      waits.push(Math.round((world.now - before) / 100) / 10);
      world.end(1006);
    }
    assert.deepEqual(waits, [1.5, 2.5, 4.5, 8.5, 16.5]);
    assert.equal(world.state, 'closed (1006), not connecting again by itself');
    await world.pass(600_000);
    assert.deepEqual([world.sockets.length, world.button.hidden], [6, false]);
    world.button.onclick();
    assert.deepEqual([world.sockets.length, world.button.hidden], [7, true]);
    world.connect();
    assert.equal(world.elements.get('storage').textContent, 'redis, healthy');
    world.end(1006);
    assert.equal(world.state, 'closed (1006), connecting again in 2 s');
    assert.equal(world.elements.get('storage').textContent, '…');
  },

  async 'what says not to come back is obeyed, and when to'() {
    const world = await World.start();
    world.connect();
    world.say({ type: 'closing', code: 4000, retry_after_ms: 4768 });
    world.end(4000);
    await world.pass(4_700);
    assert.equal(world.sockets.length, 1);
    await world.pass(100);
    assert.equal(world.sockets.length, 2);
    world.end(4502);
    await world.pass(600_000);
    assert.deepEqual([world.sockets.length, world.button.hidden], [2, true]);
  },

  async 'another zone that is chosen meanwhile stays chosen'() {
    const world = await World.start();
    world.connect();
    world.end(1006);
    world.elements.get('zones').value = 'ercot';
    world.elements.get('zones').onchange();
    world.connect();
    await world.pass(30_000);
    assert.equal(world.sockets.length, 2);
    assert.match(world.socket.url, /^ws:\/\/gateway\/ws\/market\/ercot\?snapshot=1$/);
  },

  async 'a gateway without zones is asked on, one that is not there five times'() {
    const world = await World.start((it) => { it.zones = []; });
    await world.pass(600_000);
    assert.equal(world.state, 'no zone has prices yet');
    world.zones = ['pjm'];
    await world.pass(5_000);
    assert.equal(world.sockets.length, 1);
    const other = await World.start((it) => { it.isThere = false; });
    assert.equal(other.state, 'Failed to fetch, connecting again in 2 s');
    await other.pass(600_000);
    assert.equal(other.state, 'Failed to fetch, not connecting again by itself');
    other.isThere = other.isBusy = true;
    other.button.onclick();
    await other.settle();
    assert.equal(other.state, 'the gateway answered 503, connecting again in 2 s');
    await other.pass(100_000);
    other.isBusy = false;
    other.button.onclick();
    await other.settle();
    assert.deepEqual([other.sockets.length, other.button.hidden], [1, true]);
  },
};

for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name}\n${error.stack}`);
    process.exitCode = 1;
  }
}
