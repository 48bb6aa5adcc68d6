/** How good a spectrum is; the counterpart of `anna_onnx.quality`. */

import { clamp, nearestRank } from "./numeric.ts";

/** Deviation of the continuum from 1, and change of it along a spectrum, that are still normal. */
export const CONTINUUM_TOLERANCE = 0.1;

/** Part of a spectrum that is taken for an end of it. */
const END = 0.1;

/** Pixels that an estimate of the S/N needs; with fewer, all good ones are looked at. */
const ENOUGH = 32;

/**
 * Return the signal-to-noise ratio per pixel.
 *
 * With errors the median of flux / sigma, without them the estimate of Stoehr et al. (2008, ASP Conf. 394, 505),
 * taken away from the lines; at most 512 pixels, evenly spread, are looked at. Where bad pixels leave fewer than
 * `ENOUGH` of these, all good pixels count, as if the bad ones were not between them.
 */
export function estimateSnr(flux: Float64Array, sigma: Float64Array | null, bad: Uint8Array | null): number {
  const { snr, nUsed } = sampledSnr(flux, sigma, bad);
  if (bad === null || nUsed >= ENOUGH) return snr;
  const onlyGood = (values: Float64Array) => values.filter((_, i) => !bad[i]);
  return sampledSnr(onlyGood(flux), sigma && onlyGood(sigma), null).snr;
}

/** Return the ratio from some pixels, and from how many that are good. */
function sampledSnr(
  flux: Float64Array,
  sigma: Float64Array | null,
  bad: Uint8Array | null,
): { snr: number; nUsed: number } {
  const n = flux.length;
  if (n < (sigma === null ? 5 : 1)) return { snr: NaN, nUsed: 0 };
  const step = Math.ceil(n / 512);
  const good = bad === null ? flux : flux.map((value, i) => (bad[i] ? NaN : value));
  // float32 as in Python: of equal sums one more or less is brighter than usual.
  const every = (start: number, stop: number) =>
    Float32Array.from({ length: Math.max(Math.ceil((stop - start) / step), 0) }, (_, i) => good[start + i * step]);
  const count = (values: Float32Array) => values.filter((value) => !Number.isNaN(value)).length;
  if (sigma !== null) {
    const ratio = every(0, n).map((value, i) => value / Math.fround(sigma[i * step]));
    return { snr: Math.max(nearestRank(ratio, 0.5), 0), nUsed: count(ratio) };
  }
  const center = every(2, n - 2);
  const right = every(4, n);
  const around = every(0, n - 4).map((value, i) => value + right[i]);
  const total = center.map((value, i) => value + around[i]);
  const usual = nearestRank(total, 0.5);
  const third = center.map((value, i) => (total[i] >= usual ? Math.abs(2 * value - around[i]) : NaN));
  const noise = (1.482602 / Math.sqrt(6)) * nearestRank(third, 0.5);
  return { snr: Math.max(nearestRank(every(0, n), 0.5) / noise, 0), nUsed: count(total) };
}

/**
 * Return where the continuum lies and by how much it changes.
 *
 * The level of a half of the spectrum is the 90th percentile of means over ten
 * pixels; that of the spectrum is the higher of the two, and the tilt is red minus blue.
 */
export function continuumLevel(flux: Float64Array): { level: number; tilt: number } {
  const means = meansOf(flux);
  const half = means.length >> 1;
  const [blue, red] = [means.subarray(0, half), means.subarray(half)].map((part) => nearestRank(part, 0.9));
  return { level: nearestRank([blue, red], 1), tilt: red - blue };
}

/** Return by how much both ends lie below what is between them, NaN where one of the three is not known. */
export function endsBelow(flux: Float64Array): number {
  const means = meansOf(flux);
  const size = Math.ceil(END * means.length);
  if (means.length < 3) return NaN;
  const edges = [0, size, means.length - size, means.length];
  const [blue, middle, red] = [0, 1, 2].map((i) => nearestRank(means.subarray(edges[i], edges[i + 1]), 0.9));
  return middle - Math.max(blue, red);
}

/** Return the means over ten pixels, over fewer of a short spectrum. */
function meansOf(flux: Float64Array): Float64Array {
  const size = Math.max(1, Math.min(10, Math.floor(flux.length / 32)));
  return Float64Array.from({ length: Math.floor(flux.length / size) }, (_, bin) => {
    let total = 0;
    for (let i = 0; i < size; i++) total += flux[bin * size + i];
    return total / size;
  });
}

/**
 * Return whether a spectrum is not normalised, with the allowance that its noise needs.
 *
 * @param snr Per pixel; noise lifts the brightest means by 0.4 / snr.
 */
export function offContinuum(flux: Float64Array, snr: number): boolean {
  const { level, tilt } = continuumLevel(flux);
  const tolerance = CONTINUUM_TOLERANCE + 0.5 / clamp(Number.isNaN(snr) ? 1 : snr, 1, 1e6);
  return Math.abs(level - 1) > tolerance || Math.abs(tilt) > tolerance || endsBelow(flux) > tolerance;
}
