// Quantities as people type them, for sliders: the server reads the same texts.

const PREFIXES = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30 };
const TIMES = { us: 1e-3, ms: 1, s: 1e3, min: 60e3, h: 3600e3 };
const ENERGIES = { mj: 1, j: 1e3 };
const POWERS = { mw: 1e-3, w: 1 };

function scale(unit, suffix) {
  if (unit === "ms") return TIMES[suffix];
  if (unit === "mJ") return ENERGIES[suffix];
  if (unit === "W" || unit === "mW") return POWERS[suffix] / POWERS[unit.toLowerCase()];
  if (unit === "B") return suffix.endsWith("b") ? PREFIXES[suffix.slice(0, -1)] : undefined;
  return PREFIXES[suffix.replace(/flops?$/, "")];
}

// Value of a text in the unit of its field; null where it is none.
export function parse(text, unit) {
  const match = /^\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*$/i.exec(text || "");
  const by = match && scale(unit, match[2].toLowerCase());
  return by ? Number(match[1]) * by : null;
}

// Text of a value, to three significant digits, with the prefix that people would choose.
export function write(value, unit) {
  const round = (number) => String(Number(number.toPrecision(3)));
  if (unit === "B" || unit === "") {
    for (const [prefix, by] of [["G", 1e9], ["M", 1e6], ["K", 1e3]]) {
      if (value >= by * 0.9995) return round(value / by) + prefix + unit;
    }
    return Math.round(value) + unit;
  }
  return round(value) + unit;
}

// Places of a slider, 0 to 1000, for values between two ends, in equal steps of their logarithm.
export const PLACES = 1000;

export function place(value, low, high) {
  const share = Math.log(value / low) / Math.log(high / low);
  return Math.round(PLACES * Math.min(1, Math.max(0, share)));
}

export function valueAt(where, low, high) {
  return low * (high / low) ** (where / PLACES);
}
