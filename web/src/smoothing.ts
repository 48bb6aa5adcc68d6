/** What lowering a resolving power does to noise; the counterpart of `anna_onnx.smoothing`, where the reasons are. */

import type { Model } from "./model.ts";
import { sum } from "./numeric.ts";
import { FWHM } from "./resampling.ts";

/** Part of the variance of the noise in differences of pixels, below which no more is allowed for. */
const LEAST_LEFT = 0.01;

/** By how much the noise of a pixel is told less well where pixels share all of it. */
const FEWER = 0.08;

/** A Gaussian that lowered a resolving power. */
export interface Smoothing {
  /** By how much noise that is as wide as a line is larger than that of pixels tells. */
  readonly excess: number;
  /** What of that excess networks do not see. */
  readonly missed: number;
  /** How large the noise of a pixel looks in the differences of pixels two and four apart, over what it is. */
  readonly inDifferences: number;
}

/**
 * Return what of the excess is to be put onto errors.
 *
 * Beyond the highest S/N of the training other things than noise make them, and its share falls with the square.
 */
export function missedAt({ missed }: Smoothing, snr: number, highest: number): number {
  return missed ** (snr > highest ? (highest / snr) ** 2 : 1);
}

/** Return the one that led from a resolving power to another, on the pixels of a model; null: none did. */
export function smoothingOf({ grid: { wavelength } }: Model, degrade: readonly [number, number] | null): Smoothing {
  if (degrade === null) return { excess: 1, missed: 1, inDifferences: 1 };
  const [high, low] = degrade;
  const n = wavelength.length - 1;
  const pixels = n / Math.log(wavelength[n] / wavelength[0]) / FWHM;
  const [width, line] = [Math.sqrt(low ** -2 - high ** -2) * pixels, pixels / low];
  const kept = keptOf(width);
  const excess = Math.sqrt(line / Math.hypot(line, width) / kept);
  const [two, four] = [2, 4].map((apart) => Math.exp(-(apart ** 2) / (4 * width ** 2)));
  const left = Math.max(1 - (4 / 3) * two + four / 3, LEAST_LEFT);
  return { excess, missed: Math.sqrt(excess), inDifferences: Math.sqrt(left) / (1 + FEWER * (1 - kept)) };
}

/** Return the part of the variance of white noise that a pixel keeps: the mean of its power over all frequencies. */
function keptOf(width: number): number {
  const n = 1000;
  const power = Float64Array.from({ length: n }, (_, i) => Math.exp(-((Math.PI * width * ((i + 0.5) / n)) ** 2)));
  return sum(power) / n;
}
