/**
 * Continuum normalisation: a robust smooth curve through the upper envelope;
 * the counterpart of `anna_onnx.continuum`.
 */

import { chebyshev, leastSquares, median, quantile } from "./numeric.ts";
import { findGaps } from "./resampling.ts";

/** How a continuum is found. */
export interface Normalization {
  readonly curve: "spline" | "polynomial";
  /** Number of pieces of the spline, or degree of the polynomial. */
  readonly order: number;
  /** Limits in robust standard deviations of the relative residuals. */
  readonly low_reject: number;
  readonly high_reject: number;
  readonly iterations: number;
  /** Regions in Angstrom to leave out of the fit. */
  readonly ignore: readonly (readonly [number, number])[];
}

export const USUAL: Normalization = {
  curve: "spline",
  order: 3,
  low_reject: 1.5,
  high_reject: 3,
  iterations: 20,
  ignore: [],
};

/** Relative deviation below which no curve follows a continuum; pixels that near are never rejected. */
const BEST_FIT = 0.003;

/** Return the continuum at every pixel, NaN where none that is positive was found. */
export function fitContinuum(
  wavelength: Float64Array,
  flux: Float64Array,
  good: Uint8Array,
  recipe: Normalization,
): Float64Array {
  const ignored = (w: number) => recipe.ignore.some(([first, last]) => w >= first && w <= last);
  const use = good.map((value, i) => (value && !ignored(wavelength[i]) ? 1 : 0));
  const ends = [0, ...findGaps(wavelength).map((gap) => gap + 1), wavelength.length];
  const continuum = new Float64Array(wavelength.length);
  for (let piece = 0; piece + 1 < ends.length; piece++) {
    const [start, stop] = [ends[piece], ends[piece + 1]];
    continuum.set(
      fitPiece(wavelength.subarray(start, stop), flux.subarray(start, stop), use.subarray(start, stop), recipe),
      start,
    );
  }
  return continuum.map((value) => (value > 0 ? value : NaN));
}

function fitPiece(wavelength: Float64Array, flux: Float64Array, use: Uint8Array, recipe: Normalization): Float64Array {
  const basis = basisFunctions(wavelength, recipe);
  const enough = 2 * basis[0].length;
  // Least squares must not lose the digits of a flux of 1e-17, nor meet damaged pixels of 1e29.
  const unit = median(indices(use).map((i) => Math.abs(flux[i])));
  const pixels = indices(use).filter((i) => Math.abs(flux[i]) < 1e6 * unit);
  if (pixels.length < enough) return new Float64Array(wavelength.length).fill(NaN);
  const scaled = flux.map((value) => value / unit);
  let curve = firstGuess(basis, scaled, pixels);
  let kept: number[] = [];
  for (let round = 0; round < recipe.iterations; round++) {
    // Relative to the curve, as noise and lines are; where a first guess falls below zero, to little.
    const level = curve.map((value) => Math.max(value, 0.01));
    const residual = scaled.map((value, i) => (value - curve[i]) / level[i]);
    const sigma = Math.max(spread((kept.length ? kept : pixels).map((i) => residual[i])), BEST_FIT);
    const better = pixels.filter(
      (i) => residual[i] >= -recipe.low_reject * sigma && residual[i] <= recipe.high_reject * sigma,
    );
    if (better.length < enough || same(better, kept)) break;
    kept = better;
    const rows = kept.map((i) => basis[i].map((value) => value / level[i]));
    const coefficients = leastSquares(
      rows,
      Float64Array.from(kept, (i) => scaled[i] / level[i]),
    );
    curve = evaluate(basis, coefficients);
  }
  return curve.map((value) => value * unit);
}

/**
 * Fit the bright pixels of stretches of the spectrum: neither lines nor a cosmic ray must count at first.
 *
 * On a slope the brightest are those at one end of a stretch, so the slope is taken out the second time.
 */
function firstGuess(basis: Float64Array[], flux: Float64Array, pixels: number[]): Float64Array {
  const stretches = split(pixels, 2 * basis[0].length);
  const middle = stretches.map((part) => part[part.length >> 1]);
  let curve: Float64Array = flux.map(() => 1);
  for (let round = 0; round < 2; round++) {
    const level = curve.map((value) => Math.max(value, 0.01));
    const bright = stretches.map((part) =>
      quantile(
        part.map((i) => flux[i] / level[i]),
        0.8,
      ),
    );
    const rows = middle.map((i) => basis[i].slice());
    const target = Float64Array.from(middle, (i, stretch) => bright[stretch] * level[i]);
    curve = evaluate(basis, leastSquares(rows, target));
  }
  return curve;
}

/** Split into `n` parts of nearly equal length, the longer ones first. */
function split(pixels: number[], n: number): number[][] {
  const length = Math.floor(pixels.length / n);
  const longer = pixels.length % n;
  const start = (part: number) => part * length + Math.min(part, longer);
  return Array.from({ length: n }, (_, part) => pixels.slice(start(part), start(part + 1)));
}

/** Return the robust standard deviation. */
function spread(values: number[]): number {
  const middle = median(values);
  return 1.4826 * median(values.map((value) => Math.abs(value - middle)));
}

function evaluate(basis: Float64Array[], coefficients: Float64Array): Float64Array {
  return Float64Array.from(basis, (row) => row.reduce((total, value, i) => total + value * coefficients[i], 0));
}

function indices(mask: Uint8Array): number[] {
  return Array.from(mask.keys()).filter((i) => mask[i]);
}

function same(a: number[], b: number[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** Return the basis functions of the curve at every pixel, shape (pixel, function). */
function basisFunctions(wavelength: Float64Array, recipe: Normalization): Float64Array[] {
  const first = wavelength[0];
  const width = Math.max(wavelength[wavelength.length - 1] - first, 1e-9);
  return Array.from(wavelength, (w) => {
    const x = (w - first) / width;
    return recipe.curve === "polynomial" ? chebyshevs(2 * x - 1, recipe.order) : cubicSplines(x, recipe.order);
  });
}

function chebyshevs(x: number, degree: number): Float64Array {
  const unit = (k: number) => Float64Array.from({ length: k + 1 }, (_, i) => (i === k ? 1 : 0));
  return Float64Array.from({ length: degree + 1 }, (_, k) => chebyshev(x, unit(k)));
}

/** Return the cubic B-splines over evenly spaced knots in 0-1 (de Boor 1978, ch. X), shape (pieces + 3,). */
function cubicSplines(x: number, pieces: number): Float64Array {
  const knots = Float64Array.from({ length: pieces + 7 }, (_, i) => (i - 3) / pieces);
  const at = Math.min(x, 1 - 1e-12);
  let splines = Float64Array.from({ length: pieces + 6 }, (_, i) => (at >= knots[i] && at < knots[i + 1] ? 1 : 0));
  for (let degree = 1; degree <= 3; degree++)
    splines = Float64Array.from(
      { length: splines.length - 1 },
      (_, i) => ((at - knots[i]) * splines[i] + (knots[i + degree + 1] - at) * splines[i + 1]) * (pieces / degree),
    );
  return splines;
}
