// The only render loop: everything that changes with prices is drawn in the next animation frame, once,
// however many prices arrived. A hidden tab draws nothing. Once a second everything is drawn, because ages
// count up.

const drawers = new Set<(now: number) => void>();
let isAsked = false;
export function onFrame(draw: (now: number) => void): () => void {
  drawers.add(draw);
  ask();
  return () => drawers.delete(draw);
}

/** Requests a frame, because something has changed. */
export function ask(): void {
  if (isAsked || document.hidden) return;
  isAsked = true;
  requestAnimationFrame(() => {
    isAsked = false;
    const now = Date.now();
    for (const draw of drawers) draw(now);
  });
}

setInterval(ask, 1000);
document.addEventListener('visibilitychange', ask);
