// The order ticket: a form with the fields of this gateway's orders, and the state of the last order placed.
import { useComputed, useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { Problem } from '../gateway';
import { follow, newKey, orderSchema, place, type Schema, type Story } from '../orders';
import { link, notify, storage } from '../state';
import { words } from '../format';
import { keep, kept } from '../theme';
import { lazy } from './lazy';

// Before the first order there is none.
const StoryView = lazy(() => import('./story').then((it) => it.StoryView), (problem) => problem);

/** A swap is written in one line, as a sentence. */
const SWAP: [string, string][] = [['amount', 'Sell'], ['tokenIn', 'of'], ['tokenOut', 'for'], ['slippage', 'Slippage, %']];
const SWAP_FIRST: Record<string, string> = { amount: '1.5', tokenIn: 'SOL', tokenOut: 'USDC' };

/** The last order placed, which other views do not touch. */
let current: { story: ReturnType<typeof follow>['story']; stop: () => void } | null = null;

export function Ticket({ hub }: { hub: string }) {
  const schema = useSignal<(Schema & { isSwap: boolean }) | null>(null);
  const values = useSignal<Record<string, string>>({});
  const faults = useSignal<Record<string, string>>({});
  const problem = useSignal('');
  const isSending = useSignal(false);
  const story = useSignal<ReturnType<typeof follow>['story'] | null>(current?.story ?? null);
  // One key per order: sending it again after a lost answer places nothing twice.
  const key = useRef({ body: '', key: '' });
  const form = useRef<HTMLFormElement>(null);
  const isLive = link.value.phase === 'live';

  useEffect(() => {
    if (!isLive || schema.value) return;
    orderSchema().then(
      (it) => {
        const isSwap = it.properties?.tokenIn !== undefined && it.properties.tokenOut !== undefined;
        const properties = isSwap ? Object.fromEntries(SWAP.flatMap(([name, title]) => (it.properties![name] ? [[name, { ...it.properties![name], title, description: '' }]] : []))) : it.properties;
        values.value = { ...(isSwap ? SWAP_FIRST : {}), ...remembered() };
        schema.value = { ...it, properties: properties ?? {}, isSwap };
        problem.value = '';
      },
      (error: unknown) => { problem.value = `The form of an order cannot be read: ${words(error)}`; },
    );
  }, [isLive]);

  const shape = schema.value;
  if (!shape) return <Panel>{problem.value === '' ? <p class="dim">{isLive ? 'Reading the form of an order …' : 'Waiting for the gateway.'}</p> : <p class="fault">{problem.value}</p>}</Panel>;
  const { isSwap } = shape;
  // The key in the chart is what is traded, unless the user says otherwise.
  const given: Record<string, string> = hub === '' ? values.value : { hub, ...values.value };

  const send = async (event: Event) => {
    event.preventDefault();
    if (isSending.value) return;
    faults.value = {};
    problem.value = '';
    let body: string;
    try {
      body = write(shape, given);
    } catch (error) {
      problem.value = words(error);
      return;
    }
    if (key.current.body !== body) key.current = { body, key: newKey() };
    isSending.value = true;
    try {
      const placed = await place(body, key.current.key);
      key.current = { body: '', key: '' };
      keep('ticket', JSON.stringify(values.value));
      current?.stop();
      current = follow(placed.orderId);
      story.value = current.story;
      notify(`Order ${placed.orderId.slice(0, 8)} is placed.`);
    } catch (error) {
      if (error instanceof Problem && error.errors.length > 0) {
        faults.value = Object.fromEntries(error.errors.map((it) => [it.field, it.message]));
        const first = error.errors[0]!.field;
        form.current?.querySelector<HTMLElement>(`[name="${CSS.escape(first)}"]`)?.focus();
        const known = fieldsOf(shape).map(([name]) => name);
        problem.value = error.errors.filter((it) => !known.includes(it.field)).map((it) => `${it.field || 'the order'} ${it.message}`).join('; ');
      } else {
        problem.value = `${words(error)}${error instanceof Problem && error.status < 500 ? '' : ' Sending it again places it once at the most.'}`;
      }
    }
    isSending.value = false;
  };

  const isRefused = storage.value?.state === 'degraded' && storage.value.scope === 'all';
  return (
    <Panel paper={story.value?.value.updates.some((it) => it.executor === 'paper') ?? false} title={isSwap ? 'Order' : (shape.title ?? 'Order')}>
      <form class={isSwap ? 'swap' : 'fields'} ref={form} onSubmit={send} noValidate aria-describedby="ticket-problem">
        {fieldsOf(shape).map(([name, field, isNeeded]) => (
          <FieldInput key={name} name={name} field={field} isNeeded={isNeeded} value={given[name] ?? text(field.default)} fault={faults.value[name] ?? ''} onValue={(value) => { values.value = { ...values.value, [name]: value }; }} />
        ))}
        <button class="primary" disabled={isSending.value || !isLive}>{isSending.value ? 'Placing …' : 'Place order'}</button>
      </form>
      <p class="fault" id="ticket-problem" role="alert">{problem.value}</p>
      {isRefused && problem.value === '' && <p class="dim small">While Redis is away the gateway may not take orders.</p>}
      {story.value && <Placed story={story.value} />}
    </Panel>
  );
}

function Placed({ story }: { story: { value: Story } }) {
  const shown = useComputed(() => story.value);
  return <StoryView story={shown.value} isShort={true} />;
}

function Panel({ children, title = 'Order', paper = false }: { children: preact.ComponentChildren; title?: string; paper?: boolean }) {
  return (
    <section class="panel ticket" aria-labelledby="ticket">
      <div class="head"><h2 id="ticket">{title}</h2><span class="spring" />{paper && <span class="chip sim" title="The built-in worker simulates: nothing is traded">Paper, nothing is traded</span>}</div>
      {children}
    </section>
  );
}

function FieldInput({ name, field, isNeeded, value, fault, onValue }: { name: string; field: Schema; isNeeded: boolean; value: string; fault: string; onValue: (value: string) => void }) {
  const label = `${field.title ?? labelOf(name)}${field.description && field.description.length < 12 ? `, ${field.description}` : ''}`;
  const common = { name, 'aria-invalid': fault !== '', 'aria-describedby': fault !== '' ? `fault-${name}` : undefined, required: isNeeded };
  const take = (event: Event) => onValue((event.currentTarget as HTMLInputElement).value);
  const type = typeOf(field);
  let input;
  if (field.enum) {
    input = <select {...common} value={value} onChange={take}>{[...(isNeeded && value !== '' ? [] : ['']), ...field.enum.map(String)].map((it) => <option key={it} value={it}>{it === '' ? '–' : it}</option>)}</select>;
  } else if (type === 'boolean') {
    input = <select {...common} value={value} onChange={take}><option value="">–</option><option value="true">yes</option><option value="false">no</option></select>;
  } else if (type === 'json') {
    input = <textarea {...common} rows={2} value={value} onInput={take} placeholder="JSON" spellcheck={false} />;
  } else if (field.format === 'date-time') {
    input = <input {...common} type="datetime-local" step="1" value={value} onInput={take} />;
  } else {
    const isNumber = type === 'number' || type === 'integer';
    input = <input {...common} value={value} inputMode={isNumber ? 'decimal' : 'text'} class={isNumber ? 'n' : ''} maxLength={field.maxLength} autocomplete="off" spellcheck={false} onInput={take} />;
  }
  return (
    <label class={fault === '' ? '' : 'bad'}>
      <span title={field.description}>{label}{isNeeded || field.title === 'Slippage, %' ? '' : <i class="dim"> optional</i>}</span>
      {input}
      {fault !== '' && <em id={`fault-${name}`}>{fault}</em>}
    </label>
  );
}

/** The fields of an order; those of nested objects by path. */
function fieldsOf(shape: Schema, path = '', isNeeded = true): [string, Schema, boolean][] {
  return Object.entries(shape.properties ?? {}).flatMap(([name, field]) => {
    const whole = path === '' ? name : `${path}.${name}`;
    const needed = isNeeded && (shape.required ?? []).includes(name);
    if (field.properties) return fieldsOf(field, whole, needed);
    return [[whole, path === '' ? field : { ...field, title: field.title ?? `${labelOf(path)} ${name}` }, needed]];
  });
}

function labelOf(name: string): string {
  const spaced = name.split('.').at(-1)!.replace(/([a-z])([A-Z])/g, '$1 $2').replace(/[_-]/g, ' ').toLowerCase();
  return spaced[0]!.toUpperCase() + spaced.slice(1);
}

function typeOf(field: Schema): string {
  const type = Array.isArray(field.type) ? field.type.find((it) => it !== 'null') : field.type;
  if (type === 'object' || type === 'array') return 'json';
  return type ?? (field.enum || field.format || field.pattern ? 'string' : 'json');
}

const text = (value: unknown) => (value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value));

/** The order as JSON. Numbers keep the digits that were typed. */
function write(shape: Schema, values: Record<string, string>, path = ''): string {
  const parts = Object.entries(shape.properties ?? {}).flatMap(([name, field]) => {
    const whole = path === '' ? name : `${path}.${name}`;
    if (field.properties) {
      const inner = write(field, values, whole);
      return inner === '{}' && !(shape.required ?? []).includes(name) ? [] : [`${JSON.stringify(name)}:${inner}`];
    }
    const value = (values[whole] ?? text(field.default)).trim();
    if (value === '') return [];
    return [`${JSON.stringify(name)}:${written(whole, field, value)}`];
  });
  return `{${parts.join(',')}}`;
}

function written(name: string, field: Schema, value: string): string {
  const type = typeOf(field);
  if (type === 'number' || type === 'integer') {
    const plain = value.replace(',', '.').replace('−', '-').replace(/^\+/, '');
    // A valid JSON number stays one; anything else is sent as text, and the gateway says what is wrong with it.
    return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(plain) ? plain : JSON.stringify(value);
  }
  if (type === 'boolean') return value;
  if (field.enum) return JSON.stringify(field.enum.find((it) => String(it) === value) ?? value);
  if (field.format === 'date-time' && !/(Z|[+-]\d\d:\d\d)$/.test(value)) {
    const at = new Date(value);
    return JSON.stringify(Number.isNaN(at.getTime()) ? value : at.toISOString());
  }
  if (type !== 'json') return JSON.stringify(value);
  try {
    return JSON.stringify(JSON.parse(value));
  } catch {
    throw new Error(`${labelOf(name)} is not JSON.`);
  }
}

function remembered(): Record<string, string> {
  try {
    return JSON.parse(kept('ticket') ?? '{}') as Record<string, string>;
  } catch {
    return {};
  }
}
