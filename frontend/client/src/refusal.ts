/**
 * Finds out why no WebSocket could be opened, which browsers do not tell pages, by a request over HTTP.
 *
 * @packageDocumentation
 */
import type { Refusal } from './client.js';
import type { Problem } from './zonewire.js';

export type { Refusal } from './client.js';

const WITHIN_MS = 5_000;

const ask = (url: string, init?: RequestInit) => fetch(url, { ...init, cache: 'no-store', signal: AbortSignal.timeout(WITHIN_MS) });

/**
 * Requests the address of the gateway's WebSocket over plain HTTP. If the gateway refuses that, it would refuse a
 * WebSocket too: `code` is then the status, `reason` its sentence, and a 4xx other than 429 is final. In any other case
 * the reason is a text for people and `code` is 1006, since an obstacle in the network may disappear.
 *
 * A page of an origin that the gateway does not permit cannot read the answer, so the client keeps trying as if the
 * network were down; the reason says that the gateway answers, and what is probably wrong.
 *
 * @param address - the gateway's HTTP address
 * @returns nothing if the address is in order
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
