/** Labels, units and numbers as a person reads them. */

import { median } from "../numeric.ts";

const SYMBOLS: Record<string, string> = {
  teff: "Teff",
  logg: "log g",
  feh: "[Fe/H]",
  mh: "[M/H]",
  alpha: "[α/Fe]",
  vmic: "v mic",
  vmac: "v mac",
  vsini: "v sin i",
  rv: "RV",
};

/** Return the field's symbol of a label, or its name. */
export function symbol(name: string): string {
  return SYMBOLS[name.toLowerCase()] ?? name;
}

/** Return a unit of astropy's spelling as it is printed: `dex(cm / s2)` -> `dex (cm/s²)`. */
export function unitText(unit: string): string {
  return unit.replaceAll(" / ", "/").replace("s2", "s²").replace("dex(", "dex (");
}

/** Return how many decimals show an error with two significant digits. */
export function decimalsFor(error: number): number {
  if (!(error > 0) || !Number.isFinite(error)) return 2;
  return Math.min(Math.max(1 - Math.floor(Math.log10(error)), 0), 6);
}

/** Return a number with a true minus sign; a dash when it is not known. */
export function numberText(value: number, decimals: number): string {
  return Number.isFinite(value) ? value.toFixed(decimals).replace("-", "−") : "–";
}

/** Return `± error`; nothing when the error is not known. */
export function errorText(error: number, decimals: number): string {
  return Number.isFinite(error) ? `± ${numberText(error, decimals)}` : "";
}

/** Return a number with three significant digits, without an exponent. */
export function roundedText(value: number): string {
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

/** Return the decimals with which a column of values is shown. */
export function columnDecimals(errors: readonly number[]): number {
  return decimalsFor(median(errors.filter(Number.isFinite)));
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}
