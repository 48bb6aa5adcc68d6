/** Numbers as Python's format specifications write them. */

/** Return `value` as Python's `:.<digits>g` does. */
export function general(value: number, digits = 6): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0" : "0";
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= digits) {
    const sign = exponent < 0 ? "-" : "+";
    return `${withoutZeros(mantissa)}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  return withoutZeros(value.toFixed(Math.max(digits - 1 - exponent, 0)));
}

/** Return `value` as Python's `:.<decimals>f` does. */
export function fixed(value: number, decimals: number): string {
  if (Number.isFinite(value)) return value.toFixed(decimals);
  return general(value);
}

/** Return a fraction as Python's `:.<decimals>%` does. */
export function percent(value: number, decimals = 0): string {
  return `${fixed(100 * value, decimals)}%`;
}

function withoutZeros(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}
