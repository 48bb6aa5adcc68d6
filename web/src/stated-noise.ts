/** What the errors of a file say beside the noise that is seen; the counterpart of `anna_onnx.statednoise`. */

import { nearestRank, sum } from "./numeric.ts";

/** By how much the stated noise may exceed the seen one, and nothing follows. */
export const USUAL = 1.25;

/** Times the median error, from which on one says that a pixel was not measured, and nothing of its noise. */
const UNMEASURED = 30;

/** Return the noise of a pixel that a network file would find in differences if the errors are right. */
function inDifferences(sigma: Float64Array): number {
  let [total, n] = [0, 0];
  for (let i = 2; i < sigma.length - 2; i++) {
    const root = ((4 * sigma[i] ** 2 + sigma[i - 2] ** 2 + sigma[i + 2] ** 2) / 6) ** 0.25;
    if (Number.isFinite(root)) [total, n] = [total + root, n + 1];
  }
  return (total / n) ** 2;
}

/** Return by how much the rms of noise exceeds what its differences tell, because pixels differ. */
export function unevenness(sigma: Float64Array): number {
  const all = measured(sigma);
  const known = all.filter(Number.isFinite);
  const ratio = Math.sqrt(sum(known.map((value) => value ** 2)) / known.length) / inDifferences(all);
  return Number.isFinite(ratio) ? Math.max(ratio, 1) : 1;
}

/** Return by how much the stated noise exceeds the seen one beyond the usual; 1 where it does not. */
export function excess(sigma: Float64Array, pixelNoise: number): number {
  const ratio = inDifferences(measured(sigma)) / pixelNoise / USUAL;
  return ratio > 1 ? Math.min(ratio, 1e6) : 1;
}

/** Return errors without those that only say that a pixel was not measured (NaN). */
function measured(sigma: Float64Array): Float64Array {
  const limit = UNMEASURED * nearestRank(sigma, 0.5);
  return sigma.map((value) => (value < limit ? value : NaN));
}
