/** Does a spectrum look like anything the network was trained on? The counterpart of `anna_onnx.novelty`. */

import { interpolate, median, sum } from "./numeric.ts";

const ROUNDS = 4;
const TINY = 1e-30;

/** The subspace of the training spectra and the remainders that clean spectra leave. */
export interface Novelty {
  /** Mean training spectrum, shape (pixel,). */
  readonly mean: Float64Array;
  /** Orthonormal directions, shape (component, pixel), one after the other. */
  readonly components: Float32Array;
  readonly noise: Float64Array;
  readonly threshold: Float64Array;
}

/** Return remainder / threshold; above 1 a spectrum is unlike the training set. */
export function noveltyScore(novelty: Novelty, flux: Float32Array): number {
  return remainder(novelty, flux) / interpolate(pixelNoise(flux), novelty.noise, novelty.threshold);
}

/** Return the combination of training spectra that comes nearest to a spectrum. */
export function nearestKnown({ mean, components }: Novelty, flux: Float32Array): Float64Array {
  const n = flux.length;
  const valid = flux.map((value) => (Number.isFinite(value) ? 1 : 0));
  const centered = Float64Array.from(flux, (value, i) => (valid[i] ? value - Math.fround(mean[i]) : 0));
  const project = (values: Float64Array) => {
    const projected = new Float64Array(n);
    for (let start = 0; start < components.length; start += n) {
      let amount = 0;
      for (let i = 0; i < n; i++) amount += values[i] * components[start + i];
      for (let i = 0; i < n; i++) projected[i] += amount * components[start + i];
    }
    return projected;
  };
  const whole = !valid.includes(0);
  const nearest = whole ? project(centered) : fitValid(project, centered, valid);
  return nearest.map((value, i) => value + mean[i]);
}

/** Return what fits the valid pixels best, by conjugate gradients in the space of the components. */
function fitValid(
  project: (values: Float64Array) => Float64Array,
  known: Float64Array,
  valid: Float32Array,
): Float64Array {
  const fit = new Float64Array(known.length);
  let rest = project(known);
  let direction = rest;
  let size = product(rest, rest);
  for (let round = 0; round < ROUNDS; round++) {
    const image = project(direction.map((value, i) => (valid[i] ? value : 0)));
    const step = size / Math.max(product(direction, image), TINY);
    for (let i = 0; i < fit.length; i++) fit[i] += step * direction[i];
    rest = rest.map((value, i) => value - step * image[i]);
    const before = size;
    size = product(rest, rest);
    direction = rest.map((value, i) => value + (size / Math.max(before, TINY)) * direction[i]);
  }
  return fit;
}

function product(one: Float64Array, other: Float64Array): number {
  return sum(one.map((value, i) => value * other[i]));
}

/** Return the rms of what lies outside the subspace. */
function remainder(novelty: Novelty, flux: Float32Array): number {
  const known = nearestKnown(novelty, flux);
  const squares = Array.from(flux, (value, i) => (value - known[i]) ** 2).filter(Number.isFinite);
  return Math.sqrt(sum(squares) / Math.max(squares.length, 1));
}

/**
 * Estimate the noise of a pixel from second differences (Stoehr et al. 2008, ASP Conf. Ser. 394, 505);
 * at most 512 pixels, evenly spread, are looked at.
 */
export function pixelNoise(flux: ArrayLike<number>): number {
  const step = Math.ceil(flux.length / 512);
  const difference: number[] = [];
  for (let i = 0; i + 4 < flux.length; i += step) {
    const third = Math.abs(2 * flux[i + 2] - flux[i] - flux[i + 4]);
    if (!Number.isNaN(third)) difference.push(third);
  }
  return difference.length ? (1.482602 / Math.sqrt(6)) * median(difference) : 0;
}
