/** The radial velocity of a star: which a network knows, and which its spectrum has. As `anna_onnx.velocity`. */

import { type Fit, type FitLimits, fitScore } from "./fit.ts";
import { general } from "./format.ts";
import { C_KMS } from "./medium.ts";
import type { Model } from "./model.ts";

/** Largest velocity between the topocentric and the barycentric frame, km/s. */
export const EARTH_MOTION = 30;

/** What a velocity is told by: noise of a pixel over the lines expected, and the part of their variance that is found. */
const MOST_NOISE = 3;
const LEAST_LINES = 0.5;

/** Whether the network was trained over all velocities that the Earth's motion brings. */
export function toleratesMotion({ preparation: { velocity_range: range } }: Model): boolean {
  return range !== null && range[0] <= -EARTH_MOTION && range[1] >= EARTH_MOTION;
}

/** Whether the network was trained with such a velocity, or nothing is known of that. */
export function tolerates({ preparation: { velocity_range: range } }: Model, velocity: number): boolean {
  return range === null || !(velocity < range[0] || velocity > range[1]);
}

/** Return the velocities of the training, as a message says them. */
export function trainedVelocities({ preparation }: Model): string {
  const [low, high] = preparation.velocity_range ?? [0, 0];
  return `the model was trained with ${general(low)} to ${general(high)}`;
}

/** Return the velocity at which a spectrum fits what the network expects of it, km/s; null where none can be told. */
export function fittedVelocity(
  model: Model,
  limits: FitLimits,
  fit: Fit,
  flux: Float32Array,
): { velocity: number; error: number } | null {
  const valid = flux.filter((value) => Number.isFinite(value));
  const n = Math.max(valid.length, 1);
  const mean = valid.reduce((total, value) => total + value, 0) / n;
  const variance = valid.reduce((total, value) => total + (value - mean) ** 2, 0) / n;
  const noise = fit.noise / fit.lines;
  const found = (variance - fit.noise ** 2) / fit.lines ** 2;
  const told = fitScore(limits, fit) <= 1 && noise <= MOST_NOISE && found >= LEAST_LINES;
  return told ? { velocity: fit.velocity, error: (lineWidth(model) * noise) / Math.sqrt(n) } : null;
}

/** Return the FWHM of a line that is not resolved, km/s; three pixels where the resolving power is not known. */
function lineWidth({ preparation: { resolution }, grid: { wavelength } }: Model): number {
  if (resolution !== null) return C_KMS / resolution;
  const n = wavelength.length;
  return (3 * C_KMS * Math.log(wavelength[n - 1] / wavelength[0])) / (n - 1);
}
