// What the gateway reports about its storage and about one connection, in words. Numbers in, sentences out.
import type { ConnectionStory, StateSpell, SubscriptionInfo } from '../../../docs/schema/zonewire';
import { bytes, count, duration, plural, titled } from './format';

/** The health of a connection. */
export const HEALTH: Record<string, string> = {
  healthy: 'Keeps up with what is sent',
  behind: 'Does not keep up with what is sent',
  silent: 'Has not been heard from for too long',
  closing: 'Is being closed',
};
export const isSlow = (it: { health: string }) => it.health !== 'healthy';

/** `zone:pjm` is `pjm`, `order:…` is an order. */
export function channelOf(name: string): { kind: string; name: string } {
  const at = name.indexOf(':');
  return at < 0 ? { kind: '', name } : { kind: name.slice(0, at), name: name.slice(at + 1) };
}

export function channelInWords(channel: string): string {
  const { kind, name } = channelOf(channel);
  return kind === 'order' ? `order ${name.slice(0, 8)}` : kind === 'zone' ? name : channel;
}

/** The end of a log. */
export interface End { epoch: string; offset: number }

/** How many entries the log is ahead of what a subscription was sent; null if unknown. */
export function lagOf(it: SubscriptionInfo, end: End | undefined): number | null {
  if (end === undefined || it.offset === undefined || it.epoch !== end.epoch) return null;
  return Math.max(0, end.offset - it.offset);
}

/** The phase of a subscription; `waits` messages wait for the connection, and count as sent. */
export function phaseInWords(it: SubscriptionInfo, lag: number | null, waits = 0): string {
  if (it.phase === 'finished') return 'has ended with its order';
  if (it.phase === 'catching_up') return lag !== null && lag > 0 ? `catches up, ${plural(lag, 'entry', 'entries')} behind` : 'catches up';
  return lag === null ? it.phase : lag === 0 ? (waits === 0 ? 'up to date' : 'up to date once it takes what waits') : `${plural(lag, 'entry', 'entries')} behind`;
}

/** What waits for a connection. */
export function waiting(it: { waiting_messages: number; waiting_bytes: number }): string {
  return it.waiting_messages === 0 ? 'nothing waits for it' : `${plural(it.waiting_messages, 'message waits', 'messages wait')} for it, ${bytes(it.waiting_bytes)}`;
}

/** The changes of a connection from one reading to the next. */
export function changes(before: ConnectionStory, now: ConnectionStory): { word: string; text: string }[] {
  const found: { word: string; text: string }[] = [];
  if (now.health !== before.health) found.push({ word: now.health, text: `${HEALTH[now.health] ?? titled(now.health)}; ${waiting(now)}.` });
  if (now.closing !== undefined && before.closing === undefined) found.push({ word: 'closing', text: `Its close is under way: ${now.closing}.` });
  if (now.waited_for !== before.waited_for) found.push(now.waited_for ? { word: 'waited for', text: 'Channels wait until it has taken what was sent.' } : { word: 'not waited for', text: 'Channels go on without waiting for it.' });
  if (now.token_expires_at !== before.token_expires_at) found.push({ word: 'token', text: now.token_expires_at === undefined ? 'Its token does not expire any more.' : 'It has presented another token.' });
  const was = new Map(before.subscriptions.map((it) => [it.channel, it]));
  const is = new Map(now.subscriptions.map((it) => [it.channel, it]));
  const begun = [...is.keys()].filter((channel) => !was.has(channel));
  const gone = [...was.keys()].filter((channel) => !is.has(channel));
  if (begun.length > 0) found.push({ word: 'follows', text: `It follows ${some(begun)} from now on.` });
  if (gone.length > 0) found.push({ word: 'leaves', text: `It follows ${some(gone)} no longer.` });
  const live = [...is.values()].filter((it) => it.phase === 'live' && was.get(it.channel)?.phase === 'catching_up').map((it) => it.channel);
  if (live.length > 0) found.push({ word: 'live', text: `It has caught up with ${some(live)}.` });
  const late = [...is.values()].filter((it) => it.phase === 'catching_up' && was.get(it.channel)?.phase === 'live').map((it) => it.channel);
  if (late.length > 0) found.push({ word: 'catches up', text: `It is given ${some(late)} from the log, since it was behind.` });
  return found;
}

export function some(channels: readonly string[]): string {
  const shown = channels.slice(0, 4).map(channelInWords).join(', ');
  return channels.length > 4 ? `${shown} and ${count(channels.length - 4)} more` : shown;
}

/**
 * The position before all ids with this prefix, as the list of connections takes it; null if there is none.
 */
export function before(prefix: string): string | null {
  const digits = prefix.toLowerCase().replaceAll('-', '');
  if (!/^[0-9a-f]{1,32}$/.test(digits)) return null;
  // Entries after a position exclude the position itself.
  const start = BigInt(`0x${digits.padEnd(32, '0')}`);
  const text = (start === 0n ? 0n : start - 1n).toString(16).padStart(32, '0');
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
}

/** Whether an id has this prefix, however it is written. */
export const begins = (id: string, prefix: string) => id.replaceAll('-', '').startsWith(prefix.toLowerCase().replaceAll('-', ''));

const lasted = (ms: number) => (ms < 1000 ? `${Math.round(ms)} ms` : duration(ms));

/** A past state of the storage: how long, why, and its result. `waits` entries wait in the current one. */
export function spellInWords(it: StateSpell, waits: number): string {
  const isNow = it.until === undefined;
  const sentences = [`${isNow ? 'So far' : 'For'} ${lasted(it.lasted_ms)}${it.scope === 'some' ? ', a part of Redis' : ''}.`];
  // A serving storage needs no reason.
  if (it.reason !== '') sentences.push(`${titled(it.reason)}${it.state === 'healthy' ? '' : `, code ${it.reason_code}`}.`);
  if (isNow && waits > 0) sentences.push(`${plural(waits, 'entry waits', 'entries wait')} for Redis.`);
  const tolls: [number, string, string][] = [
    [it.entries_late, 'entry was sent to Redis late', 'entries were sent to Redis late'],
    [it.entries_put_back, 'entry was put back', 'entries were put back'],
    [it.entries_refused, 'entry was refused, since the journal was full', 'entries were refused, since the journal was full'],
    [it.logs_lost, 'log had lost something', 'logs had lost something'],
    [it.entries_let_go, 'entry will be in no log', 'entries will be in no log'],
  ];
  const told = tolls.filter(([value]) => value > 0).map(([value, one, many]) => plural(value, one, many));
  if (told.length > 0) sentences.push(`${told.join('; ')}.`);
  return sentences.join(' ');
}
