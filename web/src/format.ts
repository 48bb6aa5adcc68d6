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
  return withoutZeros(fixed(value, Math.max(digits - 1 - exponent, 0)));
}

/** Return `value` as Python's `:z.<decimals>f` does, which knows no minus before zero. */
export function fixed(value: number, decimals: number): string {
  if (!Number.isFinite(value)) return general(value);
  const text = value.toFixed(decimals);
  // Python takes a half to the even digit, JavaScript away from zero.
  const isHalf = Math.abs((value * 2 ** (decimals + 1)) % 2) === 1;
  const rounded = isHalf && /[13579]$/.test(text) ? (value * (1 - Number.EPSILON)).toFixed(decimals) : text;
  return rounded.replace(/^-(?=[0.]+$)/, "");
}

/** Return a fraction as Python's `:z.<decimals>%` does. */
export function percent(value: number, decimals = 0): string {
  return `${fixed(100 * value, decimals)}%`;
}

function withoutZeros(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}
