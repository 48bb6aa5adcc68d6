/** What spectrum would the training set show for the labels inferred? The counterpart of `anna_onnx.emulator`. */

import { clamp, interpolate, leastSquares, legendre, sum } from "./numeric.ts";
import { pixelNoise } from "./novelty.ts";
import type { Shifter } from "./shifting.ts";

const TEST_COMPONENTS = 16;
const LEAST_ERROR = 0.003;
const LARGEST_ERROR = 0.3;
const CONTINUUM_ERROR = 0.02;
const CONTINUUM_ORDER = 4;
const LEAST_NOISE = 1e-4;
/** How well a velocity that is said to be known is, km/s. */
export const KNOWN_TO = 10;
const ROUNDS = 4;
const HUGE = 100;

/** From labels to a spectrum at rest, and how far clean spectra are from it. */
export interface Emulator {
  readonly mean: Float64Array;
  /** Orthonormal directions, shape (component, pixel), one after the other. */
  readonly components: Float32Array;
  /** Weights, shape (out, in), and biases of the network from scaled labels to amounts of the components. */
  readonly layers: readonly { readonly weight: Float32Array; readonly bias: Float32Array }[];
  readonly noise: Float64Array;
  readonly misfit_threshold: Float64Array;
  readonly blur_threshold: Float64Array;
  readonly line_error: number;
  readonly blur_error: number;
  readonly velocities: readonly [number, number];
}

export interface Fit {
  /** Above 1 further from the emulation than clean spectra are. */
  readonly score: number;
  readonly velocity: number;
  readonly pixelNoise: number;
  /** What the emulation leaves, in units of the noise. */
  readonly misfit: number;
}

/** Compare a spectrum, NaN where a pixel is not valid, with the emulation of its labels, scaled to 0-1. */
export function compare(
  emulator: Emulator,
  flux: Float32Array,
  scaled: Float64Array,
  errors: Float64Array,
  shifter: Shifter,
  velocities = emulator.velocities,
): Fit {
  const { mean, components } = emulator;
  const nPixel = mean.length;
  const nComponent = components.length / nPixel;
  const labels = scaled.map((value) => clamp(Number.isNaN(value) ? 0.5 : value, 0, 1));
  const amounts = amountsOf(emulator, labels);
  const model = combine(mean, components, amounts);
  const lines = around(model);
  const given = Float64Array.from(flux, (value) => clamp(value, -HUGE, HUGE));
  const velocity = shifter.measure(around(given), lines, velocities[0] - KNOWN_TO, velocities[1] + KNOWN_TO);
  const shifted = shifter.shift(model, velocity, NaN);
  const left = given.map((value, i) => value - shifted[i]);
  const share = Math.max(left.filter(Number.isFinite).length, 1) / nPixel;
  const known = left.map((value) => (Number.isFinite(value) ? value : 0));
  const atRest = shifter.shift(known, -velocity, 0);
  const inside = project(components, atRest);
  const smooth = smoothDirections(components, nPixel);
  const explained = squares(inside) + sum(smooth.map((one) => dot(one, atRest) ** 2));
  const outside = Math.max(squares(known) - explained, 0);
  const nFree = Math.max(nPixel - nComponent - smooth.length, 1);
  const noise = Math.max(Math.sqrt(outside / (share * nFree)), LEAST_NOISE);
  const directions = directionsOf(emulator, labels, amounts, errors, model);
  const takeOut = (values: Float64Array) => withoutDirections(directions, values, noise);
  const gap = shifter.shift(given, -velocity, 0).map((value) => (Number.isNaN(value) ? 1 : 0));
  const filled = given.some(Number.isNaN) ? fillGaps(components, inside, takeOut, gap) : inside;
  const wider = project(components, secondDifferences(model));
  const ofItsOwn = takeOut(wider);
  const weight = Math.max(dot(wider, ofItsOwn), 1e-12);
  // The misfit allows for an error of the profile too.
  const unexplained = takeOut(filled);
  const usual = emulator.blur_error ** 2;
  const step = (usual * dot(wider, unexplained)) / (noise ** 2 + usual * weight);
  const rest = unexplained.map((value, k) => value - step * ofItsOwn[k]).subarray(0, TEST_COMPONENTS);

  const dilution = Math.sqrt(nPixel / Math.min(TEST_COMPONENTS, nComponent));
  const lineError = emulator.line_error * Math.sqrt(squares(lines) / nPixel) * dilution;
  const remains = Math.sqrt(squares(rest) / rest.length / share);
  const misfit = remains / Math.hypot(noise, lineError);
  const widening = dot(ofItsOwn, inside) / (share * weight);
  const blur = widening / Math.hypot(noise / Math.sqrt(share * weight), emulator.blur_error);
  const score = Math.max(
    misfit / interpolate(noise, emulator.noise, emulator.misfit_threshold),
    blur / interpolate(noise, emulator.noise, emulator.blur_threshold),
  );
  return { score, velocity, pixelNoise: pixelNoise(left), misfit: remains / noise };
}

/** Return the amounts of the components that labels scaled to 0-1 have. */
function amountsOf({ layers }: Emulator, scaled: Float64Array): Float64Array {
  let values = scaled.map((value) => 2 * value - 1);
  layers.forEach(({ weight, bias }, i) => {
    const linear = Float64Array.from(bias, (start, row) => start + dot(weight.subarray(row * values.length), values));
    values = i < layers.length - 1 ? linear.map((value) => value / (1 + Math.exp(-value))) : linear;
  });
  return values;
}

/** Return what errors of one sigma of labels, velocity and continuum do to the components. */
function directionsOf(
  emulator: Emulator,
  labels: Float64Array,
  amounts: Float64Array,
  errors: Float64Array,
  model: Float64Array,
): Float64Array[] {
  const { components } = emulator;
  const ofLabels = Array.from(labels, (label, i) => {
    const step = clamp(Number.isNaN(errors[i]) ? LARGEST_ERROR : errors[i], LEAST_ERROR, LARGEST_ERROR);
    const towardMiddle = label > 0.5 ? label - step : label + step;
    const changed = amountsOf(
      emulator,
      labels.map((value, j) => (j === i ? towardMiddle : value)),
    );
    return changed.map((value, k) => value - amounts[k]);
  });
  const continuum = Array.from({ length: CONTINUUM_ORDER + 1 }, (_, order) =>
    project(components, legendrePolynomial(order, model.length)).map((value) => CONTINUUM_ERROR * value),
  );
  return [...ofLabels, project(components, gradient(model)), ...continuum];
}

/** Return what of errors of the continuum lies outside of the components: orthonormal directions. */
function smoothDirections(components: Float32Array, nPixel: number): Float64Array[] {
  const found: Float64Array[] = [];
  for (let order = 0; order <= CONTINUUM_ORDER; order++) {
    let one = legendrePolynomial(order, nPixel);
    const inside = project(components, one);
    const minus = inside.map((value) => -value);
    one = combine(one, components, minus);
    for (const other of found) {
      const along = dot(one, other);
      one = one.map((value, i) => value - along * other[i]);
    }
    const length = Math.sqrt(squares(one));
    found.push(one.map((value) => value / length));
  }
  return found;
}

function legendrePolynomial(order: number, n: number): Float64Array {
  const series = new Float64Array(order + 1);
  series[order] = 1;
  return Float64Array.from({ length: n }, (_, i) => legendre((2 * i) / (n - 1) - 1, series));
}

/** Return what is left of amounts when steps along the directions, each of about one sigma, are taken out. */
function withoutDirections(directions: readonly Float64Array[], amounts: Float64Array, noise: number): Float64Array {
  const prior = directions.map((_, i) => Float64Array.from(directions, (_direction, j) => (i === j ? noise : 0)));
  const rows = [...Array.from(amounts, (_, k) => Float64Array.from(directions, (one) => one[k])), ...prior];
  const target = new Float64Array(rows.length);
  target.set(amounts);
  const steps = leastSquares(rows, target);
  return amounts.map((value, k) => value - sum(directions.map((one, i) => steps[i] * one[k])));
}

/** Fill gaps of what is left with what is allowed for, in the components. */
function fillGaps(
  components: Float32Array,
  inside: Float64Array,
  takeOut: (values: Float64Array) => Float64Array,
  gap: Float64Array,
): Float64Array {
  let filled = inside;
  for (let round = 0; round < ROUNDS; round++) {
    const rest = takeOut(filled);
    const explained = combine(
      new Float64Array(gap.length),
      components,
      filled.map((value, k) => value - rest[k]),
    );
    const inGap = project(
      components,
      explained.map((value, i) => (gap[i] ? value : 0)),
    );
    filled = inside.map((value, k) => value + inGap[k]);
  }
  return filled;
}

function combine(mean: Float64Array, components: Float32Array, amounts: Float64Array): Float64Array {
  const result = Float64Array.from(mean);
  amounts.forEach((amount, k) => {
    for (let i = 0; i < result.length; i++) result[i] += amount * components[k * result.length + i];
  });
  return result;
}

function project(components: Float32Array, values: Float64Array): Float64Array {
  const n = values.length;
  return Float64Array.from({ length: components.length / n }, (_, k) => dot(components.subarray(k * n), values));
}

/** Return values around their mean, zero where there is none. */
function around(values: Float64Array): Float64Array {
  const known = values.filter(Number.isFinite);
  const mean = sum(known) / Math.max(known.length, 1);
  return values.map((value) => (Number.isFinite(value) ? value - mean : 0));
}

function gradient(values: Float64Array): Float64Array {
  const last = values.length - 1;
  return values.map((_, i) => {
    const [left, right] = [Math.max(i - 1, 0), Math.min(i + 1, last)];
    return (values[right] - values[left]) / (right - left);
  });
}

/** Return what a Gaussian with a variance of one square pixel does, to first order. */
function secondDifferences(values: Float64Array): Float64Array {
  const last = values.length - 1;
  return values.map((value, i) => 0.5 * (values[Math.max(i - 1, 0)] - 2 * value + values[Math.min(i + 1, last)]));
}

function squares(values: Float64Array): number {
  return dot(values, values);
}

/** Return the scalar product over the length of the second. */
function dot(one: ArrayLike<number>, other: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < other.length; i++) total += one[i] * other[i];
  return total;
}
