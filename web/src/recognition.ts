/** Is a spectrum, and are its labels, of the kind that a network was trained on? As `anna_onnx.recognition`. */

import { type Fit, fitScore } from "./fit.ts";
import { fixed } from "./format.ts";
import { C_KMS, refractiveIndex } from "./medium.ts";
import type { Label, Model } from "./model.ts";
import { noveltyScore } from "./novelty.ts";
import { clamp, sum } from "./numeric.ts";

/** Largest velocity of lines that are said to be at rest, km/s. */
const AT_REST = 10;

/** Pairs of labels of which the training stars fill a part only, in even cells of both. */
export interface Hull {
  readonly pairs: readonly (readonly [number, number])[];
  /** 1 where there are training stars; shape (pair, cell, cell). */
  readonly filled: readonly (readonly (readonly number[])[])[];
}

export interface Verdict {
  readonly outside: boolean;
  readonly unlike: boolean;
  /** What seems wrong with a spectrum that is unlike; empty when there is no telling. */
  readonly reason: string;
}

/** Judge a prepared spectrum. `fit`: what the network says of it; `atRest`: whether its lines are said to be at rest. */
export function judge(
  model: Model,
  flux: Float32Array,
  values: Float64Array,
  errors: Float64Array,
  fit: Fit | undefined,
  atRest: boolean,
): Verdict {
  const scaled = values.map((value, i) => (value - model.labels[i].low) / span(model.labels[i]));
  // An old model has no errors.
  const margin = errors.map((error, i) => (Number.isNaN(error) ? 0 : error) / span(model.labels[i]));
  const outside = isOutside(model.hull, scaled, margin);
  const unlike = !(score(model, flux, fit) <= 1); // so is what cannot be compared
  const isKnown = fit !== undefined && model.fit_limits !== null;
  const isDisplaced = atRest && isKnown && Math.abs(fit.velocity) > AT_REST;
  const reason = isDisplaced && !unlike ? displaced(model, fit.velocity) : "";
  return { outside, unlike: unlike || isDisplaced, reason };
}

/** Return how far a spectrum is from those of the training: above 1 further than clean ones are. */
function score({ novelty, fit_limits }: Model, flux: Float32Array, fit: Fit | undefined): number {
  if (fit !== undefined && fit_limits !== null) return fitScore(fit_limits, fit);
  return novelty === null ? 0 : noveltyScore(novelty, flux);
}

function isOutside(hull: Hull | null, scaled: Float64Array, margin: Float64Array): boolean {
  // Half of the stars at the edge come out beyond it: only more than the error counts. No number is outside too.
  if (scaled.some((value, i) => !(value + margin[i] >= 0 && value - margin[i] <= 1))) return true;
  if (hull === null) return false;
  const nCell = hull.filled[0].length;
  const cell = (value: number) => Math.floor(clamp(value * nCell, 0, nCell - 1));
  return hull.pairs.some(([i, j], pair) => {
    const rows = hull.filled[pair].slice(cell(scaled[i] - margin[i]), cell(scaled[i] + margin[i]) + 1);
    return !rows.some((row) => sum(row.slice(cell(scaled[j] - margin[j]), cell(scaled[j] + margin[j]) + 1)) > 0);
  });
}

function displaced({ grid }: Model, velocity: number): string {
  const between = C_KMS * (refractiveIndex(sum(grid.wavelength) / grid.wavelength.length) - 1);
  const signed = `${velocity < 0 ? "-" : "+"}${fixed(Math.abs(velocity), 0)}`;
  const medium = `vacuum taken as air, or the reverse, makes ${fixed(between, 0)}`;
  return `its lines are ${signed} km/s from where they are at rest (${medium})`;
}

function span({ low, high }: Label): number {
  return high - low;
}
