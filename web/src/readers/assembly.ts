/** From stored arrays to a spectrum: order, padding, errors; the counterpart of `anna_onnx.readers.assembly`. */

import { NoWavelengthError, ReadError } from "../errors.ts";
import { general } from "../format.ts";
import { median } from "../numeric.ts";
import { describe, makeSpectrum, type Facts, type Source, type Spectrum, type Unread } from "../spectrum.ts";

/** APOGEE and others write this for "no measurement", unless fluxes are as large. */
const HUGE_ERROR = 1e10;
/** Median fluxes that a huge error must exceed. */
const FAR_ABOVE = 10;
const GAP_OF_ZEROS = 5;

export interface Stored {
  /** Angstrom. */
  readonly wavelength: Float64Array;
  readonly flux: Float64Array;
  readonly sigma?: Float64Array | null;
  readonly bad?: Uint8Array | null;
}

/** Return what `read` returns, or what it complains of. */
export function attempt<T>(source: Source, read: () => T): T | Unread {
  try {
    return read();
  } catch (error) {
    if (error instanceof ReadError) return { source, problem: error.message };
    throw error;
  }
}

/** Make a spectrum of arrays as they are stored, putting the pixels in ascending order of wavelength. */
export function assemble(stored: Stored, facts: Facts, source: Source): Spectrum {
  const n = stored.flux.length;
  if (stored.wavelength.length !== n)
    throw new ReadError(`${describe(source)}: ${stored.wavelength.length} wavelengths and ${n} fluxes`);
  const { sigma, notes } = usableSigma(stored.sigma ?? null, stored.flux);
  const zero = padding(stored.flux);
  const bad = zero.map((value, i) => (value || stored.bad?.[i] ? 1 : 0));
  const { order, more } = ascending(stored.wavelength, describe(source));
  const known: Facts = { ...facts, notes: [...facts.notes, ...notes, ...more] };
  if (order === null) {
    const resolved = withResolution(known, stored.wavelength);
    return makeSpectrum(stored.wavelength, stored.flux, sigma, bad, resolved, source);
  }
  const take = (values: Float64Array) => Float64Array.from(order, (i) => values[i]);
  const wavelength = apart(take(stored.wavelength));
  return makeSpectrum(
    wavelength,
    take(stored.flux),
    sigma && take(sigma),
    Uint8Array.from(order, (i) => bad[i]),
    withResolution(known, wavelength),
    source,
  );
}

/** Return facts with the resolving power of the instrument, where none is stated and the pixels can show it. */
function withResolution(facts: Facts, wavelength: Float64Array): Facts {
  if (facts.resolution !== null || facts.nominal === null || wavelength.length < 2) return facts;
  const [instrument, resolution] = facts.nominal;
  const middle = wavelength.length >> 1;
  if (wavelength[middle] - wavelength[middle - 1] > wavelength[middle] / resolution) return facts;
  const note = `resolving power ${resolution}, that of ${instrument}`;
  return { ...facts, resolution, notes: [...facts.notes, note] };
}

/** Return the pixels in ascending order of wavelength, null when they are. */
function ascending(wavelength: Float64Array, where: string): { order: Uint32Array | null; more: string[] } {
  const more: string[] = [];
  let order = Uint32Array.from(wavelength.keys());
  const usable = order.filter((i) => Number.isFinite(wavelength[i]) && wavelength[i] > 0);
  if (usable.length < 2)
    throw new NoWavelengthError(`${where}: ${usable.length} of ${order.length} pixels have a wavelength`);
  if (usable.length < order.length) {
    more.push(`${order.length - usable.length} pixels without a wavelength dropped`);
    order = usable;
  }
  const first = wavelength[order[0]];
  if (order.every((pixel) => wavelength[pixel] === first))
    throw new NoWavelengthError(`${where}: the wavelength of all ${order.length} pixels is ${general(first)}`);
  const steps = (good: (step: number) => boolean) =>
    order.every((pixel, i) => i === 0 || good(wavelength[pixel] - wavelength[order[i - 1]]));
  if (steps((step) => step > 0)) return { order: more.length ? order : null, more };
  if (steps((step) => step < 0))
    return { order: order.reverse(), more: [...more, "wavelengths stored descending, reversed"] };
  // Of equal wavelengths the first stays first: the comparison ends with the place.
  order.sort((a, b) => wavelength[a] - wavelength[b] || a - b);
  return { order, more: [...more, "overlapping or unordered wavelengths, sorted"] };
}

/** Move equal wavelengths apart by units in the last place, so that no pixel is lost. */
function apart(wavelength: Float64Array): Float64Array {
  let rank = 0;
  return wavelength.map((value, i) => {
    rank = i > 0 && value === wavelength[i - 1] ? rank + 1 : 0;
    return value + rank * spacing(value);
  });
}

/** Return the distance from a positive number to the next larger one. */
function spacing(value: number): number {
  return 2 ** (Math.floor(Math.log2(value)) - 52);
}

/** Return where exact zeros stand for missing flux: at the ends, and in runs of five and more. */
function padding(flux: Float64Array): Uint8Array {
  const missing = new Uint8Array(flux.length);
  for (let start = 0; start < flux.length;) {
    let stop = start;
    while (stop < flux.length && flux[stop] === 0) stop++;
    if (stop - start >= GAP_OF_ZEROS || (stop > start && (start === 0 || stop === flux.length)))
      missing.fill(1, start, stop);
    start = Math.max(stop, start + 1);
  }
  return missing;
}

/** Return errors with NaN for none; an array without any error at all is as good as none. */
function usableSigma(sigma: Float64Array | null, flux: Float64Array): { sigma: Float64Array | null; notes: string[] } {
  if (sigma === null) return { sigma, notes: [] };
  const level = flux.filter((value) => Number.isFinite(value) && value !== 0).map(Math.abs);
  const limit = Math.max(HUGE_ERROR, level.length ? FAR_ABOVE * median(level) : 0);
  const usable = (value: number) => value > 0 && value < limit;
  if (sigma.some((value) => usable(value) || value >= HUGE_ERROR || value === -Infinity))
    return { sigma: sigma.map((value) => (usable(value) ? value : NaN)), notes: [] };
  return { sigma: null, notes: ["the file's errors are all zero or NaN, left out"] };
}
