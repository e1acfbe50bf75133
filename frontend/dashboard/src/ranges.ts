// The ranges of a chart: the labels of its buttons, and milliseconds.
export const RANGES: Record<string, [string, number]> = {
  '5m': ['5 min', 300_000],
  '15m': ['15 min', 900_000],
  '1h': ['1 hour', 3_600_000],
  all: ['All kept', Infinity],
};
