/** Is a spectrum, and are its labels, of the kind that a network was trained on? As `anna_onnx.recognition`. */

import { type Fit, fitScore, isSharper } from "./fit.ts";
import { fixed } from "./format.ts";
import { C_KMS, refractiveIndex } from "./medium.ts";
import type { Label, Model } from "./model.ts";
import { noveltyScore } from "./novelty.ts";
import { clamp, sum } from "./numeric.ts";
import type { Medium } from "./spectrum.ts";
import { EARTH_MOTION, fittedVelocity, tolerates, toleratesMotion, trainedVelocities } from "./velocity.ts";

/** Largest velocity of lines that are said to be at rest, km/s. */
const AT_REST = 10;

/** Errors of a velocity that 99 % of the measured ones are within. */
const SURELY = 3;

/** Velocities that differ by more, km/s, are not taken as the same, however large their error. */
const CLOSE = 0.6;

const TOO_SHARP = "its lines are sharper than those of the training: its resolving power is higher (resolution)";

/** What is said of the wavelengths of a spectrum. */
export interface Said {
  readonly medium: Medium;
  /** The lines are at rest. */
  readonly atRest: boolean;
  /** Of the star, km/s, where it is stated and was not removed. */
  readonly velocity: number | null;
  /** The motion of the Earth is not in the wavelengths. */
  readonly barycentric: boolean;
}

/** Pairs of labels of which the training stars fill a part only, in even cells of both. */
export interface Hull {
  readonly pairs: readonly (readonly [number, number])[];
  /** 1 where there are training stars; shape (pair, cell, cell). */
  readonly filled: readonly (readonly (readonly number[])[])[];
}

export interface Verdict {
  readonly outside: boolean;
  readonly unlike: boolean;
  /** The lines are where those of a star at rest are in the other medium. */
  readonly doubtful: boolean;
  /** What seems wrong with a spectrum; empty when nothing does, or there is no telling. */
  readonly reason: string;
}

/** Judge a prepared spectrum. `fit`: what the network says of it. */
export function judge(
  model: Model,
  flux: Float32Array,
  values: Float64Array,
  errors: Float64Array,
  fit: Fit | undefined,
  said: Said,
): Verdict {
  const scaled = values.map((value, i) => (value - model.labels[i].low) / span(model.labels[i]));
  // An old model has no errors.
  const margin = errors.map((error, i) => (Number.isNaN(error) ? 0 : error) / span(model.labels[i]));
  const outside = isOutside(model.hull, scaled, margin);
  const unlike = !(score(model, flux, fit) <= 1); // so is what cannot be compared
  const moved = judgeVelocity(model, flux, fit, said);
  const sharper = fit !== undefined && model.fit_limits !== null && isSharper(model.fit_limits, fit) ? TOO_SHARP : "";
  const reason = (moved.isDisplaced && unlike ? "" : moved.reason) || sharper;
  return { outside, unlike: unlike || moved.isDisplaced || moved.isBeyond, doubtful: moved.isDoubtful, reason };
}

/** Say what is wrong with where the lines of a spectrum are that fits. */
function judgeVelocity(model: Model, flux: Float32Array, fit: Fit | undefined, said: Said) {
  const nothing = { isDisplaced: false, isBeyond: false, isDoubtful: false, reason: "" };
  // Training spectra in another frame do not tell where lines are at rest.
  if (fit === undefined || model.fit_limits === null || model.preparation.frame !== "rest") return nothing;
  if (said.atRest) {
    const isDisplaced = Math.abs(fit.velocity) > AT_REST;
    return { ...nothing, isDisplaced, reason: isDisplaced ? displaced(model, fit.velocity) : "" };
  }
  const measured = toleratesMotion(model) && fittedVelocity(model, model.fit_limits, fit, flux);
  if (!measured) return nothing;
  const { velocity, error } = measured;
  const nearest = Math.sign(velocity) * (Math.abs(velocity) - SURELY * error);
  const isBeyond = !tolerates(model, nearest);
  // Where the lines are if the medium is the other one, and how well that is known.
  const other = ofOther(model, said.medium) + (said.velocity ?? 0);
  const stated = said.barycentric ? AT_REST : AT_REST + EARTH_MOTION;
  const close = said.velocity === null ? Math.min(SURELY * error, CLOSE) : stated;
  const isDoubtful = Math.abs(velocity - other) <= close;
  const beyond = `its lines are shifted by ${signed(velocity, 0)} km/s, ${trainedVelocities(model)}`;
  const reason = isDoubtful ? doubtful(model, velocity, said.velocity) : isBeyond ? beyond : "";
  return { ...nothing, isBeyond, isDoubtful, reason };
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

function displaced(model: Model, velocity: number): string {
  const medium = `vacuum taken as air, or the reverse, makes ${fixed(between(model), 0)}`;
  return `its lines are ${signed(velocity, 0)} km/s from where they are at rest (${medium})`;
}

function doubtful(model: Model, velocity: number, stated: number | null): string {
  const shift = velocity - (stated ?? 0);
  const mistake = shift > 0 ? "vacuum taken as air" : "air taken as vacuum";
  if (stated === null)
    return `its lines are shifted by ${signed(shift, 1)} km/s, as those of a star at rest are by ${mistake}`;
  const made = Math.sign(shift) * between(model);
  return `its lines are ${signed(shift, 0)} km/s from the stated velocity, ${mistake} makes ${signed(made, 0)}`;
}

/** Return the velocity, km/s, at which the lines of a star at rest are if a medium is the other one. */
function ofOther(model: Model, medium: Medium): number {
  const taken = medium === "unknown" ? model.grid.medium : medium;
  return taken === "air" ? between(model) : -between(model);
}

/** Return what air and vacuum differ by, km/s. */
function between({ grid }: Model): number {
  return C_KMS * (refractiveIndex(sum(grid.wavelength) / grid.wavelength.length) - 1);
}

function signed(value: number, decimals: number): string {
  return `${value < 0 ? "-" : "+"}${fixed(Math.abs(value), decimals)}`;
}

function span({ low, high }: Label): number {
  return high - low;
}
