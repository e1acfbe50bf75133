// One rate over the last minutes, as a sparkline with its newest value and its maximum.
import { useEffect, useRef } from 'preact/hooks';
import { short } from '../format';
import { seconds, type Second } from '../stats';
import { theme } from '../theme';

const SPAN_MS = 600_000;
/** Seconds further apart than this were not observed. */
const HOLE_MS = 3500;

export function Rate({ title, of, tone = '' }: { title: string; of: (second: Second) => number; tone?: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const list = seconds.value;
  const now = list.at(-1);
  const most = list.reduce((top, it) => Math.max(top, of(it)), 0);
  theme.value;
  useEffect(() => {
    const it = canvas.current!;
    const [width, height] = [it.clientWidth, it.clientHeight];
    const scale = devicePixelRatio || 1;
    [it.width, it.height] = [Math.round(width * scale), Math.round(height * scale)];
    const paint = it.getContext('2d')!;
    paint.scale(scale, scale);
    const to = now?.at ?? 0;
    const span = Math.min(SPAN_MS, Math.max(60_000, to - (list[0]?.at ?? to)));
    const x = (second: Second) => width - 1 - ((to - second.at) / span) * width;
    const y = (second: Second) => height - 1 - (most === 0 ? 0 : (of(second) / most) * (height - 4));
    const style = getComputedStyle(it);
    paint.strokeStyle = style.color;
    paint.lineWidth = 1.5;
    paint.lineJoin = 'round';
    paint.beginPath();
    list.forEach((second, i) => {
      const before = list[i - 1];
      if (before && second.at - before.at < HOLE_MS) paint.lineTo(x(second), y(second));
      else paint.moveTo(x(second), y(second));
    });
    paint.stroke();
    const first = list.find((second) => to - second.at <= span);
    if (!first || !now) return;
    paint.lineTo(x(now), height);
    paint.lineTo(x(first), height);
    paint.globalAlpha = 0.08;
    paint.fillStyle = style.color;
    paint.fill();
  });
  return (
    <figure class={`rate ${most > 0 ? tone : ''}`}>
      <figcaption><span>{title}</span><b>{now ? short(of(now)) : '–'}</b></figcaption>
      <canvas ref={canvas} role="img" aria-label={`${title}: now ${now ? short(of(now)) : 'unknown'}, at most ${short(most)} in the last 10 minutes`} />
      <small class="dim">at most {short(most)}</small>
    </figure>
  );
}
