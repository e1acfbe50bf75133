// Numbers, times and durations as the page writes them: a real minus sign, the same decimals in a column.

const MINUS = '−';
const NONE = '–';

/** A number with this many decimals, and commas between thousands. */
export function fixed(value: number | null | undefined, decimals: number): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  // Beyond this, toFixed would write exponents, and digits that nobody sent.
  if (Math.abs(value) >= 1e15) return String(value).replace('-', MINUS);
  const text = Math.abs(value).toFixed(decimals);
  const grouped = text.length < decimals + (decimals > 0 ? 5 : 4) ? text : group(text);
  // A number that rounds to zero has no sign.
  return value < 0 && Number(text) !== 0 ? MINUS + grouped : grouped;
}

function group(text: string): string {
  const point = text.indexOf('.');
  const whole = point < 0 ? text : text.slice(0, point);
  return whole.replace(/\B(?=(\d{3})+$)/g, ',') + (point < 0 ? '' : text.slice(point));
}

/** A change with an arrow, so that it can be read without colours. */
export function signed(value: number | null, decimals: number): string {
  if (value === null) return NONE;
  const text = fixed(Math.abs(value), decimals);
  if (Number(text.replaceAll(',', '')) === 0) return `= ${text}`;
  return `${value > 0 ? '▲' : '▼'} ${text}`;
}

/** How many decimals a number was written with, at most 6. */
export function decimalsOf(value: number): number {
  if (Number.isInteger(value)) return 0;
  const text = String(value);
  if (text.includes('e')) return 6;
  return Math.min(6, text.length - text.indexOf('.') - 1);
}

export function count(value: number): string {
  return fixed(value, 0);
}

/** A rate or a count in about four characters. */
export function short(value: number): string {
  if (value >= 999_500_000) return `${(value / 1e9).toFixed(1)}G`;
  if (value >= 999_500) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 9_995) return `${(value / 1e3).toFixed(1)}k`;
  return value >= 100 || Number.isInteger(value) ? count(Math.round(value)) : value.toFixed(1);
}

export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A duration in its two largest units: `48 s`, `3 min 12 s`, `2 h 5 min`, `4 d 3 h`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return pair(seconds, 60, 'min', 1, 's');
  if (seconds < 86_400) return pair(seconds, 3600, 'h', 60, 'min');
  return pair(seconds, 86_400, 'd', 3600, 'h');
}

function pair(seconds: number, large: number, largeName: string, small: number, smallName: string): string {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeName}${rest > 0 ? ` ${rest} ${smallName}` : ''}`;
}

/** An age in a narrow column: `4 s`, `12 min`, `3 h`, `2 d`. */
export function age(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < -1) return `in ${age(-ms)}`;
  if (seconds < 1) return 'now';
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

const two = (value: number) => String(value).padStart(2, '0');

/** A time of day here, `14:02:31`; with the date if it is not today. */
export function clock(ms: number, now = Date.now()): string {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return NONE;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const isToday = new Date(now).toDateString() === at.toDateString();
  return isToday ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

/** `1 entry`, `2 entries`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** An error in words. */
export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** With a capital first letter. */
export const titled = (word: string) => (word === '' ? '' : word[0]!.toUpperCase() + word.slice(1));
