/** How spectra compare with what the training set would show for their inferred labels; as `anna_onnx.fit`. */

import { interpolate } from "./numeric.ts";
import type { Smoothing } from "./smoothing.ts";

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

/** Return the fit of a spectrum that was smoothed on its way: its noise is larger than it looks. */
export function ofSmoothed(fit: Fit, { missed, inDifferences }: Smoothing): Fit {
  return {
    ...fit,
    pixelNoise: (fit.pixelNoise / inDifferences) * missed,
    noise: fit.noise * missed,
    wideningError: fit.wideningError * missed,
  };
}

/** Lines may be sharper by this times as much as they may be broader. */
const SHARPER = 1.5;

/** Return how far a spectrum is from its emulation; above 1 further than clean spectra are. */
export function fitScore(limits: FitLimits, fit: Fit): number {
  return Math.max(...scores(limits, fit));
}

/** Return whether what is wrong with a spectrum is lines that are too sharp. */
export function isSharper(limits: FitLimits, fit: Fit): boolean {
  const [outside, misfit, , sharp] = scores(limits, fit);
  return sharp > Math.max(outside, misfit, 1);
}

/** Return what lies outside, the misfit, and the broadening that is missing or too much, over their thresholds. */
function scores(limits: FitLimits, fit: Fit): [number, number, number, number] {
  const threshold = (values: readonly number[]) => interpolate(fit.noise, limits.noise, values);
  const outside = fit.noise / Math.hypot(fit.pixelNoise, limits.outside_error * fit.lines);
  const misfit = fit.misfit / Math.hypot(fit.noise, limits.line_error * fit.lines * limits.dilution);
  const blur = fit.widening / Math.hypot(fit.wideningError, limits.blur_error) / threshold(limits.blur_threshold);
  return [
    outside / threshold(limits.outside_threshold),
    misfit / threshold(limits.misfit_threshold),
    blur,
    -blur / SHARPER,
  ];
}
