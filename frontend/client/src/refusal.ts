/**
 * Why no WebSocket came about: browsers do not tell pages, so it is asked for over HTTP.
 *
 * @packageDocumentation
 */
import type { Refusal } from './client.js';
import type { Problem } from './zonewire.js';

export type { Refusal } from './client.js';

const WITHIN_MS = 5_000;

const ask = (url: string, init?: RequestInit) => fetch(url, { ...init, cache: 'no-store', signal: AbortSignal.timeout(WITHIN_MS) });

/**
 * Asks the gateway for the address of its WebSocket as if it were a page. What the gateway itself refuses so, it refuses
 * a WebSocket too: `code` is the status then, `reason` its sentence, and a 4xx other than 429 is final. Of anything else
 * it gives a reason for people, and `code` 1006, since what stands between may be over soon.
 *
 * A page of an origin that the gateway does not know may not read the answer, so it is tried for again like a network
 * that is down; the reason says that the gateway is there, and what is probably wrong.
 *
 * @param address - the gateway's, over HTTP
 * @returns nothing where all is well with the address
 */
export const refusal = async (address: string): Promise<Refusal | undefined> => {
  try {
    const { status, headers, ...answer } = await read(`${address}/ws`);
    if (answer.code === 'upgrade_required') return;
    const retryMs = 1_000 * (Number(headers.get('retry-after')) || 0);
    return {
      code: answer.code ? status : 1006,
      reason: answer.code ? `${answer.code}: ${answer.detail}` : `${address} answers ${status}, and is no gateway`,
      ...(retryMs && { retry_after_ms: retryMs }),
    };
  } catch (error) {
    // A page is told nothing but that something answers.
    const answers = await ask(`${address}/health/live`, { mode: 'no-cors' }).then(() => true, () => false);
    const { cause, message } = error as Error & { cause?: Error };
    const reason = answers ? `${address} answers, but not to pages of this origin; is it in the gateway's http.origins?` : (cause?.message ?? message);
    return { code: 1006, reason };
  }
};

const read = async (url: string) => {
  const answer = await ask(url);
  const { code, detail } = (await answer.json().catch(() => ({}))) as Problem;
  return { status: answer.status, headers: answer.headers, code, detail };
};
