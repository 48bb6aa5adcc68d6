/** What the errors of a file say beside the noise that is seen; the counterpart of `anna_onnx.statednoise`. */

/** By how much the stated noise may exceed the seen one, and nothing follows. */
export const USUAL = 1.25;

/** Return the noise of a pixel that a network file would find in differences if the errors are right. */
function inDifferences(sigma: ArrayLike<number>): number {
  let [total, n] = [0, 0];
  for (let i = 2; i < sigma.length - 2; i++) {
    const root = ((4 * sigma[i] ** 2 + sigma[i - 2] ** 2 + sigma[i + 2] ** 2) / 6) ** 0.25;
    if (Number.isFinite(root)) [total, n] = [total + root, n + 1];
  }
  return (total / n) ** 2;
}

/** Return by how much the rms of noise exceeds what its differences tell, because pixels differ. */
export function unevenness(sigma: ArrayLike<number>): number {
  let [total, n] = [0, 0];
  for (let i = 0; i < sigma.length; i++) if (Number.isFinite(sigma[i])) [total, n] = [total + sigma[i] ** 2, n + 1];
  const ratio = Math.sqrt(total / n) / inDifferences(sigma);
  return Number.isFinite(ratio) ? Math.max(ratio, 1) : 1;
}

/** Return by how much the stated noise exceeds the seen one beyond the usual; 1 where it does not. */
export function excess(sigma: ArrayLike<number>, pixelNoise: number): number {
  const ratio = inDifferences(sigma) / pixelNoise / USUAL;
  return ratio > 1 ? Math.min(ratio, 1e6) : 1;
}
