// Candles on a canvas, redrawn when they change; also described in words.
import { useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { type Candles, type Drawn, lengthOf } from '../candles';
import { clock, decimalsOf, fixed } from '../format';
import { ask, onFrame } from '../frames';
import { theme } from '../theme';

/**
 * The width of a candle with its spacing, in units of the type size; the candle takes all but two
 * pixels of it.
 */
const STEP = 0.8;

export function CandleChart({ candles, interval }: { candles: Candles; interval: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const words = useSignal('');
  useEffect(() => {
    let drawn = '';
    const stop = onFrame(() => {
      const it = canvas.current;
      if (!it) return;
      const state = `${candles.version} ${it.clientWidth} ${it.clientHeight} ${theme.peek()} ${matchMedia('(prefers-color-scheme: dark)').matches}`;
      if (state === drawn) return;
      drawn = state;
      const list = candles.by.get(interval) ?? [];
      paint(it, list);
      const last = list.at(-1);
      if (last) words.value = `From ${clock(last.begins)}: open ${text(last.open)}, high ${text(last.high)}, low ${text(last.low)}, close ${text(last.close)}, volume ${text(last.volume)}${last.isClosed ? '' : '; still growing'}`;
    });
    const room = new ResizeObserver(ask);
    room.observe(canvas.current!);
    return () => { stop(); room.disconnect(); };
  }, []);
  useSignalEffect(() => { theme.value; requestAnimationFrame(ask); });
  return (
    <>
      <canvas ref={canvas} role="img" aria-label={`Candles of ${interval}. ${words.value}`} />
      <p class="dim small">{words.value}</p>
    </>
  );

  function paint(it: HTMLCanvasElement, all: readonly Drawn[]): void {
    const [width, height] = [it.clientWidth, it.clientHeight];
    const scale = devicePixelRatio || 1;
    [it.width, it.height] = [Math.round(width * scale), Math.round(height * scale)];
    const on = it.getContext('2d')!;
    on.scale(scale, scale);
    const newest = all.at(-1);
    if (!newest) return;
    const style = getComputedStyle(it);
    on.font = `${style.fontSize} ${style.fontFamily}`;
    const decimals = Math.max(...all.slice(-20).map((one) => decimalsOf(one.close)));
    const axis = Math.ceil(on.measureText(fixed(newest.high, decimals)).width) + 8;
    const step = Math.round(STEP * Number.parseFloat(style.fontSize));
    const body = step - 2;
    // A missing candle leaves its space free.
    const length = lengthOf(interval) * 1000;
    const left = (one: Drawn) => width - axis - step * (1 + Math.round((newest.begins - one.begins) / length));
    const list = all.filter((one) => left(one) >= 0);
    const colour = (name: string) => { it.style.outlineColor = `var(${name})`; return getComputedStyle(it).outlineColor; };
    const [up, down, line, dim] = [colour('--up'), colour('--down'), colour('--line'), colour('--dim')];
    it.style.outlineColor = '';
    const [low, high] = [Math.min(...list.map((one) => one.low)), Math.max(...list.map((one) => one.high))];
    const span = high - low || Math.abs(high) / 100 || 1;
    const y = (price: number) => 8 + ((high - price) / span) * (height - 16);
    on.textBaseline = 'middle';
    for (const price of [high, low + span / 2, low]) {
      const at = Math.round(y(price)) + 0.5;
      on.strokeStyle = line;
      on.strokeRect(0, at, width - axis, 0);
      on.fillStyle = dim;
      on.fillText(fixed(price, decimals), width - axis + 6, at);
    }
    for (const one of list) {
      const x = left(one);
      on.fillStyle = one.close >= one.open ? up : down;
      on.fillRect(x + Math.floor(body / 2), y(one.high), 1, Math.max(1, y(one.low) - y(one.high)));
      const [top, bottom] = [y(Math.max(one.open, one.close)), y(Math.min(one.open, one.close))];
      // Falling candles are filled, rising ones hollow, so no colour is needed.
      if (one.close < one.open || bottom - top < 3) on.fillRect(x, top, body, Math.max(1, bottom - top));
      else {
        on.clearRect(x + 1, top + 1, body - 2, bottom - top - 2);
        on.strokeStyle = up;
        on.strokeRect(x + 0.5, top + 0.5, body - 1, bottom - top - 1);
      }
    }
  }
}

const text = (value: number) => fixed(value, decimalsOf(value));
