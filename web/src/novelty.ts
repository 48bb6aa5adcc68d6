/** Does a spectrum look like anything the network was trained on? The counterpart of `anna_onnx.novelty`. */

import { interpolate, median, sum } from "./numeric.ts";

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
  let projected = project(centered);
  if (valid.includes(0))
    // Missing pixels are filled with what the subspace expects there, which needs a few rounds.
    for (let round = 0; round < 5; round++)
      projected = project(centered.map((value, i) => (valid[i] ? value : projected[i])));
  return projected.map((value, i) => value + mean[i]);
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
function pixelNoise(flux: Float32Array): number {
  const step = Math.ceil(flux.length / 512);
  const difference: number[] = [];
  for (let i = 0; i + 4 < flux.length; i += step) {
    const third = Math.abs(2 * flux[i + 2] - flux[i] - flux[i + 4]);
    if (!Number.isNaN(third)) difference.push(third);
  }
  return difference.length ? (1.482602 / Math.sqrt(6)) * median(difference) : 0;
}
