// Executes orders for a gateway with `orders.executor = "external"`. Needs Node 20 and nothing else.
//
//   node worker.mjs [--url URL] [--lease-ms N] [--work-ms N]
//
// Takes one order at a time; run several for more. The venue is simulated: replace `quote` and `send`.
// After SIGTERM or SIGINT it finishes the order at hand and exits with 0; it exits with 1 if the gateway
// refuses it or stays unreachable. If the gateway requires a token, set ZONEWIRE_TOKEN; it needs the right
// `work`.

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const TRIES_MAX = 10; // attempts of a request that the gateway cannot answer now
const CLAIM_WAIT_MS = 1_000; // how long a claim may wait for work, which also delays SIGTERM
const NAME = `worker.mjs-${process.pid}`;

const { values } = parseArgs({
  options: {
    url: { type: 'string', default: process.env.ZONEWIRE_URL ?? 'http://127.0.0.1:8080' },
    'lease-ms': { type: 'string', default: '30000' },
    'work-ms': { type: 'string', default: '500' }, // how long each stage takes
  },
});
const url = values.url.replace(/\/+$/, '');
const token = process.env.ZONEWIRE_TOKEN;
const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
const [leaseMs, workMs] = [Number(values['lease-ms']), Number(values['work-ms'])];

/** The gateway refused the request; `code` says why. */
class Refused extends Error {
  constructor(status, problem) {
    super(`${status} ${problem.code}: ${problem.detail}`);
    this.code = problem.code;
  }
}

/** The gateway cannot answer now. */
class Unavailable extends Error {
  constructor(message, retryAfterMs = 0) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The venue refused the order. */
class OrderFault extends Error {
  constructor(code, message, retry) {
    super(message);
    Object.assign(this, { code, retry });
  }
}

async function postOnce(path, body) {
  // A timer of our own: unlike `AbortSignal.timeout`, it keeps Node running while the answer is awaited.
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(new Error('no answer')), CLAIM_WAIT_MS + 10_000);
  let response;
  try {
    response = await fetch(url + path, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
      signal: patience.signal,
    });
    if (response.ok) return await response.json();
  } catch (error) {
    throw new Unavailable(error.cause?.message ?? error.message);
  } finally {
    clearTimeout(timer);
  }
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  if (response.status < 500) throw new Refused(response.status, problem);
  const retryAfterMs = 1_000 * (Number(response.headers.get('retry-after')) || 0);
  throw new Unavailable(`${response.status} ${problem.code}`, retryAfterMs);
}

/** Sends a request, and repeats it with growing delays while the gateway is busy or unreachable. */
async function post(path, body) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await postOnce(path, body);
    } catch (error) {
      if (!(error instanceof Unavailable) || attempt === TRIES_MAX) throw error;
      const backoff = Math.min(250 * 2 ** (attempt - 1), 5_000) + 250 * Math.random();
      const wait = Math.max(error.retryAfterMs, backoff);
      console.log(`${path}: ${error.message}; trying again in ${Math.round(wait)} ms`);
      await sleep(wait);
    }
  }
}

/** A claimed job; its lease is extended until `release`. */
class Job {
  constructor(claim, claimedAt) {
    this.claim = claim;
    this.heldUntil = claimedAt + claim.leaseMs; // by our clock, from before the request
    this.stopped = new AbortController(); // its reason is the refusal, if there was one
    this.keeper = this.keep();
  }

  /** Extends the lease in the background, each time a third of it has passed. */
  async keep() {
    const { signal } = this.stopped;
    for (;;) {
      await sleep(this.claim.leaseMs / 3, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      const askedAt = performance.now();
      try {
        const { jobId, token, leaseMs } = this.claim;
        await postOnce(`/api/jobs/${jobId}/extend`, { token, leaseMs });
        this.heldUntil = askedAt + this.claim.leaseMs;
      } catch (error) {
        if (error instanceof Refused) this.stopped.abort(error);
        else console.log(`cannot extend the lease: ${error.message}`);
      }
      if (performance.now() >= this.heldUntil) {
        this.stopped.abort(new Refused(409, { code: 'lease_lost', detail: 'the lease has run out' }));
      }
    }
  }

  async release() {
    this.stopped.abort();
    await this.keeper;
  }

  /** Simulates the work of a stage; a refusal ends it early. */
  async work() {
    const { signal } = this.stopped;
    await sleep(workMs, undefined, { signal }).catch(() => {});
    signal.throwIfAborted();
  }

  post(what, body) {
    return post(`/api/jobs/${this.claim.jobId}/${what}`, { token: this.claim.token, executor: NAME, ...body });
  }

  /** Reports progress, unless the job is no longer ours. */
  async progress(type, progress, message, more = {}) {
    this.stopped.signal.throwIfAborted();
    await this.post('progress', { type, progress, message, ...more });
  }
}

/** Where to trade. Simulated. */
function quote(order) {
  if (order.amount > 1_000_000) throw new OrderFault('too_large', 'no venue takes so much', false);
  return Math.random() < 0.5 ? 'raydium' : 'meteora';
}

/**
 * Sends the transaction. The job's id identifies it at the venue, so that it is executed once even if an
 * earlier run sent it and died before reporting it.
 */
function send(job) {
  return `0x${createHash('sha256').update(job.claim.jobId).digest('hex')}`;
}

async function execute(job) {
  const { order, previous } = job.claim;
  let dex = 'raydium';
  // If an earlier run got to `submitted`, only the outcome of its transaction is open.
  if (previous?.status !== 'submitted') {
    await job.progress('routing', 10, 'asking venues');
    await job.work();
    dex = quote(order);
    await job.progress('building', 50, `making the transaction for ${dex}`, { chosenDex: dex });
    await job.work();
  }
  // Reported before it is sent: from here on the order cannot be cancelled. If this is refused, nothing
  // has been sent.
  await job.progress('submitted', 80, 'sending the transaction', { dex });
  const txHash = send(job);
  await job.work();
  await job.post('complete', { txHash, dex, message: 'executed' });
}

/** Reports that the run failed; returns the outcome: another attempt, or failed for good. */
async function end(job, fault) {
  const error = { code: fault.code, message: fault.message };
  const { outcome } = await job.post('fail', { error, retry: fault.retry });
  return `${fault.message}: ${outcome}`;
}

async function run(claim, claimedAt) {
  const say = (text) => console.log(`${claim.orderId} run ${claim.run}: ${text}`);
  say('claimed');
  const job = new Job(claim, claimedAt);
  try {
    await execute(job).then(
      () => say('done'),
      async (error) => {
        if (!(error instanceof OrderFault)) throw error;
        say(await end(job, error));
      },
    );
  } catch (error) {
    if (error.code === 'cancelled') {
      const cancelled = new OrderFault('cancelled', 'cancelled while it was executed', false);
      await end(job, cancelled).then(say, (refused) => say(`dropped: ${refused.message}`));
    } else if (error instanceof Refused) {
      // Mostly `lease_lost`: the job is somebody else's now. Otherwise it will be, soon.
      say(`dropped: ${error.message}`);
    } else {
      throw error;
    }
  } finally {
    await job.release();
  }
}

let stopping = false;
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => { stopping = true; });
try {
  while (!stopping) {
    const askedAt = performance.now();
    const wish = { worker: NAME, limit: 1, leaseMs, waitMs: CLAIM_WAIT_MS };
    const { jobs } = await post('/api/jobs/claim', wish);
    for (const claim of jobs) await run(claim, askedAt);
  }
  console.log('stopped');
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
