/** How spectra compare with what the training set would show for their inferred labels; as `anna_onnx.fit`. */

import { interpolate } from "./numeric.ts";

/** The columns of the network's output `fit`, in their order. */
const COLUMNS = ["velocity", "pixelNoise", "noise", "misfit", "lines", "widening", "wideningError"] as const;
export const N_COLUMN = COLUMNS.length;

/** What comparing a spectrum with its emulation gives: see `anna_onnx.fit.Fit`. */
export type Fit = Readonly<Record<(typeof COLUMNS)[number], number>>;

/** How far clean spectra are from their emulation: see `anna_onnx.fit.FitLimits`. */
export interface FitLimits {
  readonly noise: readonly number[];
  readonly outside_threshold: readonly number[];
  readonly misfit_threshold: readonly number[];
  readonly blur_threshold: readonly number[];
  readonly dilution: number;
  readonly line_error: number;
  readonly outside_error: number;
  readonly blur_error: number;
}

/** Return the fit that has these columns. */
export function fitOf(columns: Float32Array): Fit {
  return Object.fromEntries(COLUMNS.map((name, i) => [name, columns[i]])) as Fit;
}

/** Part of the variance of the noise in differences of pixels, below which no more is allowed for. */
const LEAST_LEFT = 0.01;

/**
 * Return the fit of a spectrum that was smoothed on the way to its pixels.
 *
 * Pixels two and four apart, whose differences tell the noise of a pixel, then have some of it in common.
 *
 * @param smoothing Standard deviation of a Gaussian, pixels; 0 for none.
 */
export function ofSmoothed(fit: Fit, smoothing: number): Fit {
  if (smoothing === 0) return fit;
  const [two, four] = [2, 4].map((pixels) => Math.exp(-(pixels ** 2) / (4 * smoothing ** 2)));
  const left = Math.max(1 - (4 / 3) * two + four / 3, LEAST_LEFT);
  return { ...fit, pixelNoise: fit.pixelNoise / Math.sqrt(left) };
}

/** Return how far a spectrum is from its emulation; above 1 further than clean spectra are. */
export function fitScore(limits: FitLimits, fit: Fit): number {
  const { noise } = limits;
  const misfit = fit.misfit / Math.hypot(fit.noise, limits.line_error * fit.lines * limits.dilution);
  const outside = fit.noise / Math.hypot(fit.pixelNoise, limits.outside_error * fit.lines);
  const blur = fit.widening / Math.hypot(fit.wideningError, limits.blur_error);
  return Math.max(
    outside / interpolate(fit.noise, noise, limits.outside_threshold),
    misfit / interpolate(fit.noise, noise, limits.misfit_threshold),
    blur / interpolate(fit.noise, noise, limits.blur_threshold),
  );
}
