/** From spectra to labels, errors and flags; the counterpart of `anna_onnx.inference`. */

import { type Fit, fitScore, ofSmoothed } from "./fit.ts";
import { FLAG } from "./flags.ts";
import { general } from "./format.ts";
import type { Calibration, Model } from "./model.ts";
import { BATCH, type Network } from "./network.ts";
import { interpolate } from "./numeric.ts";
import { prepare, type Prepared, type PrepareOptions } from "./preparation.ts";
import { judge, type Said } from "./recognition.ts";
import { missedAt } from "./smoothing.ts";
import { isSpectrum, type Reading, type Source, type Spectrum, type Unread } from "./spectrum.ts";
import { excess, unevenness, USUAL } from "./stated-noise.ts";

/** A measured S/N may come out as zero or below. */
const LEAST_SNR = 1e-3;

/** Standard deviation of a label of which nothing is known, over its range. */
const UNKNOWN = 12 ** -0.5;

const FOLLOW = "those of the labels follow them";

/** One row of the result table. */
export interface Row {
  readonly source: Source;
  readonly id: string;
  /** In the labels' units, NaN = not known; `errors` hold 68 %. */
  readonly values: Float64Array;
  readonly errors: Float64Array;
  readonly snr: number;
  readonly coverage: number;
  readonly flags: number;
  readonly message: string;
  /** What the network saw, NaN where a pixel is not valid; null when it could not be read. */
  readonly flux: Float32Array | null;
}

/** Infer the labels of spectra, a batch at a time; what could not be read becomes a row that says why. */
export async function* infer(
  model: Model,
  network: Network,
  readings: readonly Reading[],
  options: PrepareOptions,
): AsyncGenerator<Row[]> {
  for (let start = 0; start < readings.length; start += BATCH) {
    const batch = readings.slice(start, start + BATCH);
    const rows = await inferBatch(model, network, batch.filter(isSpectrum), options);
    yield batch.map((reading) => (isSpectrum(reading) ? rows.shift()! : unreadable(model, reading)));
  }
}

async function inferBatch(
  model: Model,
  network: Network,
  spectra: readonly Spectrum[],
  options: PrepareOptions,
): Promise<Row[]> {
  if (!spectra.length) return [];
  const prepared = spectra.map((spectrum) => prepare(model, spectrum, options));
  const nPixel = model.grid.wavelength.length;
  const flux = new Float32Array(spectra.length * nPixel);
  prepared.forEach((one, i) => flux.set(one.flux, i * nPixel));
  const { labels, sigma, fits } = await network.run(flux);
  const n = model.labels.length;
  return spectra.map((spectrum, i) => {
    const [first, last] = [i * n, (i + 1) * n];
    const [values, errors] = [labels.subarray(first, last), sigma.subarray(first, last)];
    return makeRow(model, spectrum, prepared[i], options, values, errors, fits[i]);
  });
}

function makeRow(
  model: Model,
  spectrum: Spectrum,
  prepared: Prepared,
  options: PrepareOptions,
  labels: Float32Array,
  sigma: Float32Array,
  fit: Fit | undefined,
): Row {
  const covered = !(prepared.flags & FLAG.no_coverage);
  const values = Float64Array.from(labels, (value) => (covered ? value : NaN));
  const factors = errorFactors(model.calibration, prepared.snr);
  const seen = fit && ofSmoothed(fit, prepared.smoothing);
  const times = seen === undefined || !covered ? 1 : statedOverSeen(prepared, seen);
  const missed = missedAt(prepared.smoothing, prepared.snr, model.preparation.snr_range?.[1] ?? Infinity);
  const errors = Float64Array.from(sigma, (value, i) => {
    const widest = UNKNOWN * (model.labels[i].high - model.labels[i].low);
    const known = value * missed;
    return covered ? Math.max(known, Math.min(known * times, widest)) * factors[i] : NaN;
  });
  const noise = times > 1 ? `stated errors ${general(times * USUAL, 2)} times the noise of the pixels: ${FOLLOW}` : "";
  const explained = seen && withStatedNoise(model, prepared, seen);
  const said = saidOf(spectrum, options);
  const verdict = covered ? judge(model, prepared.flux, values, errors, explained, said) : null;
  let flags = prepared.flags;
  if (verdict?.outside) flags |= FLAG.outside_labels;
  if (verdict?.unlike) flags |= FLAG.unlike_training;
  if (verdict?.doubtful) flags |= FLAG.medium_unknown;
  return {
    source: spectrum.source,
    id: spectrum.id,
    values,
    errors,
    snr: prepared.snr,
    coverage: prepared.coverage,
    flags,
    message: [...spectrum.notes, ...prepared.notes, noise, verdict?.reason].filter(Boolean).join("; "),
    flux: prepared.flux,
  };
}

/** Return by how much the errors of a file exceed the noise that is seen, beyond the usual. */
function statedOverSeen({ sigma, snr, smoothing }: Prepared, { pixelNoise }: Fit): number {
  const seen = pixelNoise / smoothing.missed;
  return sigma !== null && 1 / snr > seen ? excess(sigma, seen) : 1;
}

/** Return the fit with what uneven stated noise explains of it. */
function withStatedNoise({ fit_limits: limits }: Model, { sigma }: Prepared, fit: Fit): Fit {
  if (sigma === null || limits === null || fitScore(limits, fit) <= 1) return fit;
  return { ...fit, pixelNoise: fit.pixelNoise * unevenness(sigma) };
}

/** Return what is said of the wavelengths of a spectrum. */
function saidOf({ medium, frame, radialVelocity }: Spectrum, { rv }: PrepareOptions): Said {
  const atRest = frame === "rest" || rv !== null;
  // Zero is what headers have that know of none.
  return {
    medium,
    atRest,
    velocity: atRest || !radialVelocity ? null : radialVelocity,
    barycentric: frame === "barycentric",
  };
}

/** Return the factors on sigma at a S/N; where it is not known the middle bin counts. */
function errorFactors({ snr: bins, factors }: Calibration, snr: number): Float64Array {
  return factors[0].map((_, label) =>
    overNoise(
      snr,
      bins,
      factors.map((row) => row[label]),
    ),
  );
}

/** Interpolate between bins of S/N in the noise, which is what errors go with. */
function overNoise(snr: number, bins: Float64Array, values: ArrayLike<number>): number {
  const at = Number.isNaN(snr) ? bins[bins.length >> 1] : snr;
  return interpolate(noise(at), bins.map(noise), values);
}

/** Return 1 / snr, negative to ascend. */
function noise(snr: number): number {
  return -1 / Math.max(snr, LEAST_SNR);
}

/** Return the row of what could not be read. */
function unreadable(model: Model, { source, problem }: Unread): Row {
  const nothing = new Float64Array(model.labels.length).fill(NaN);
  return {
    source,
    id: "",
    values: nothing,
    errors: nothing,
    snr: NaN,
    coverage: 0,
    flags: FLAG.unreadable,
    message: problem,
    flux: null,
  };
}

/** Return the largest deviation from the training machine's answers, in label ranges; null without a self-test. */
export async function selfTest(model: Model, network: Network): Promise<number | null> {
  if (model.selftest === null) return null;
  const { labels } = await network.run(model.selftest.flux);
  const expected = model.selftest.labels;
  return labels.reduce((worst, value, i) => {
    const { low, high } = model.labels[i % model.labels.length];
    return Math.max(worst, Math.abs(value - expected[i]) / (high - low));
  }, 0);
}
