/**
 * The only way from a spectrum to network input; the counterpart of `anna_onnx.preparation`.
 *
 * A spectrum goes through these steps, in this order: medium, frame, continuum,
 * resolution, wavelengths. What cannot be known or mended becomes a flag and a note.
 */

import { fitContinuum, USUAL, type Normalization } from "./continuum.ts";
import { FLAG } from "./flags.ts";
import { fixed, general, percent } from "./format.ts";
import { convert, doppler } from "./medium.ts";
import { gridText, type Model } from "./model.ts";
import { searchSorted, sum } from "./numeric.ts";
import { CONTINUUM_TOLERANCE, continuumLevel, endsBelow, estimateSnr, offContinuum } from "./quality.ts";
import { Degrader, FWHM, Interpolation, pixelEdges, resampler, type Resampled, type Resampler } from "./resampling.ts";
import { type Smoothing, smoothingOf } from "./smoothing.ts";
import type { Frame, Spectrum } from "./spectrum.ts";
import { tolerates, toleratesMotion, trainedVelocities } from "./velocity.ts";

/** What the user may ask for. */
export interface PrepareOptions {
  /** Radial velocity of the stars to be removed, km/s. */
  readonly rv: number | null;
  /** Divide by a fitted continuum also what looks normalised. */
  readonly normalize: boolean;
}

/** A spectrum as the network sees it. */
export interface Prepared {
  /** NaN where the spectrum has no good pixel. */
  readonly flux: Float32Array;
  /** Standard deviation of each pixel, null where the file states none. */
  readonly sigma: Float64Array | null;
  readonly coverage: number;
  readonly snr: number;
  readonly flags: number;
  readonly notes: readonly string[];
  /** The Gaussian that lowered its resolving power. */
  readonly smoothing: Smoothing;
}

/** A radial velocity beyond this, km/s, is a mistake. */
export const FASTEST_STAR = 3000;

/** What is not smaller is padding or damage. */
const LARGEST_FLUX = 1e30;

/** Resolving powers that differ by less than this fraction are taken as equal. */
const RESOLUTION_TOLERANCE = 0.05;

/** Fraction of bad pixels above which `bad_pixels` is flagged, unless training had more missing. */
const MANY_BAD_PIXELS = 0.02;

/** Fraction of the least coverage of the training below which nothing is inferred. */
const LEAST_COVERAGE = 0.2;

/** Fraction of the least S/N of the training below which `low_snr` is flagged: from errors, and from an estimate. */
const KNOWN_SNR_MARGIN = 0.9;
const ESTIMATED_SNR_MARGIN = 0.5;

/** 1 where divided by the continuum, -1 where none was found, 0 where it was not tried. */
type Normalized = -1 | 0 | 1;

interface OnGrid extends Resampled {
  /** Pixels with good flux, all from the first to the last of these, and those of them that the input covers. */
  readonly nGood: number;
  readonly nBetween: number;
  readonly nCovered: number;
  readonly snr: number;
  readonly normalized: Normalized;
}

/** Make network input of one spectrum. */
export function prepare(model: Model, spectrum: Spectrum, options: PrepareOptions): Prepared {
  const onGrid = bringOntoGrid(model, spectrum, options);
  const coverage = onGrid.nGood / sum(seenPixels(model));
  const left = velocityLeft(model, spectrum, options);
  const flags = findFlags(model, spectrum, onGrid, coverage, options) | (left === null ? 0 : FLAG.frame_unknown);
  return {
    flux: Float32Array.from(onGrid.flux),
    sigma: onGrid.sigma,
    coverage,
    snr: onGrid.snr,
    flags,
    notes: [
      ...commonNotes(model, spectrum),
      ...(options.rv === null ? frameNotes(model, spectrum.frame) : [velocityNote(model, options.rv)]),
      ...(left === null
        ? []
        : [`radial velocity ${fixed(left, 1)} km/s not removed (rv), ${trainedVelocities(model)}`]),
      ...rowNotes(model, onGrid, coverage, flags),
    ],
    smoothing: smoothingOf(model, degradation(model, spectrum)),
  };
}

function bringOntoGrid(model: Model, spectrum: Spectrum, options: PrepareOptions): OnGrid {
  const road = findRoad(model, spectrum, options.rv ?? 0);
  if (road === null) return notOnGrid(model, spectrum);
  const [start, stop] = road.columns;
  const wavelength = road.wavelength;
  let flux: Float64Array = spectrum.flux.slice(start, stop);
  let sigma: Float64Array | null = spectrum.sigma && spectrum.sigma.slice(start, stop);
  let bad = badPixels(flux, sigma, spectrum.bad.subarray(start, stop));
  let snr = estimateSnr(flux, sigma, bad) * road.gain;
  let normalized: Normalized = 0;
  const recipe = model.preparation.normalize ?? (options.normalize ? USUAL : null);
  if (recipe !== null && (options.normalize || looksUnnormalized(flux, bad, snr)))
    ({ flux, sigma, bad, normalized } = normalize(wavelength, flux, sigma, bad, recipe));
  // On a slope the brightest pixels, whose noise was looked at, lie at one end.
  if (sigma === null && normalized > 0) snr = estimateSnr(flux, sigma, bad) * road.gain;
  if (road.degrader !== null) {
    const smooth = road.degrader.apply(flux, sigma, bad);
    ({ flux, sigma } = smooth);
    bad = smooth.valid.map((valid) => (valid ? 0 : 1));
  }
  const resampled = withoutUnseen(road.resampler.apply(flux, sigma, bad), seenPixels(model));
  const { valid } = resampled;
  const seen = seenPixels(model);
  const covered = seen.map((value, i) => value & road.covers[i]);
  const counts = { nGood: sum(valid), nBetween: betweenGood(valid, seen), nCovered: betweenGood(valid, covered) };
  return { ...resampled, ...counts, snr, normalized };
}

/** Return 1 where training had a pixel. */
function seenPixels(model: Model): Uint8Array {
  const seen = new Uint8Array(model.grid.wavelength.length).fill(1);
  for (const [first, last] of model.preparation.unseen) seen.fill(0, first, last + 1);
  return seen;
}

/** Return how many of the pixels that count there are from the first to the last good one. */
function betweenGood(valid: Uint8Array, counted: Uint8Array): number {
  const [first, last] = [valid.indexOf(1), valid.lastIndexOf(1)];
  return first < 0 ? 0 : sum(counted.subarray(first, last + 1));
}

/** Leave out flux where training had none. */
function withoutUnseen({ flux, sigma, valid }: Resampled, seen: Uint8Array): Resampled {
  if (!seen.includes(0)) return { flux, sigma, valid };
  const kept = (values: Float64Array) => values.map((value, i) => (seen[i] ? value : NaN));
  return { flux: kept(flux), sigma: sigma && kept(sigma), valid: valid.map((value, i) => value & seen[i]) };
}

/** Return 1 where a pixel must not be used, null when all are good. */
function badPixels(flux: Float64Array, sigma: Float64Array | null, marked: Uint8Array): Uint8Array | null {
  const isGood = (value: number, i: number) =>
    !marked[i] && Math.abs(value) < LARGEST_FLUX && (sigma === null || (sigma[i] > 0 && sigma[i] < LARGEST_FLUX));
  const bad = Uint8Array.from(flux, (value, i) => (isGood(value, i) ? 0 : 1));
  return bad.includes(1) ? bad : null;
}

function notOnGrid(model: Model, spectrum: Spectrum): OnGrid {
  const nothing = model.grid.wavelength.map(() => NaN);
  const uncovered = new Uint8Array(nothing.length);
  const sigma = spectrum.sigma && nothing;
  return { flux: nothing, sigma, valid: uncovered, nGood: 0, nBetween: 0, nCovered: 0, snr: NaN, normalized: 0 };
}

function looksUnnormalized(flux: Float64Array, bad: Uint8Array | null, snr: number): boolean {
  return offContinuum(bad === null ? flux : flux.map((value, i) => (bad[i] ? NaN : value)), snr);
}

function normalize(
  wavelength: Float64Array,
  flux: Float64Array,
  sigma: Float64Array | null,
  bad: Uint8Array | null,
  recipe: Normalization,
): { flux: Float64Array; sigma: Float64Array | null; bad: Uint8Array | null; normalized: Normalized } {
  const good = Uint8Array.from(flux, (_, i) => (bad?.[i] ? 0 : 1));
  const continuum = fitContinuum(wavelength, flux, good, recipe);
  if (!continuum.some(Number.isFinite)) return { flux, sigma, bad, normalized: -1 };
  const divided = flux.map((value, i) => value / continuum[i]);
  return {
    flux: divided,
    sigma: sigma && sigma.map((value, i) => value / continuum[i]),
    bad: good.map((value, i) => (value && Math.abs(divided[i]) < LARGEST_FLUX ? 0 : 1)),
    normalized: 1,
  };
}

/** Return the resolving powers to degrade from and to, null where that of the spectrum is not higher. */
function degradation(model: Model, { resolution }: Spectrum): readonly [number, number] | null {
  const target = model.preparation.resolution;
  const higher = compareResolution(model, resolution) > 0;
  return higher && resolution !== null && target !== null ? [resolution, target] : null;
}

/** The way from a wavelength vector to the grid. */
interface Road {
  /** Pixels of the input that matter, from first to beyond the last. */
  readonly columns: readonly [number, number];
  /** Theirs, in the medium of the grid and with the velocity removed. */
  readonly wavelength: Float64Array;
  readonly degrader: Degrader | null;
  readonly resampler: Resampler;
  /** 1 where the input covers a pixel of the grid: gaps in it do not. */
  readonly covers: Uint8Array;
  /** Signal-to-noise ratio per pixel of the grid over that per pixel of the input. */
  readonly gain: number;
}

/** Return the way to the grid, null when input and grid share no wavelengths. */
function findRoad(model: Model, spectrum: Spectrum, velocity: number): Road | null {
  const grid = model.grid.wavelength;
  const [first, last] = [grid[0], grid[grid.length - 1]];
  const degrade = degradation(model, spectrum);
  // Four standard deviations of the Gaussian and a few pixels to interpolate between, or whole pixels to average.
  const margin = degrade === null ? 0 : (4 * Math.sqrt(degrade[1] ** -2 - degrade[0] ** -2)) / FWHM;
  const shift = doppler(velocity);
  const edges = pixelEdges(grid);
  const ends = [first * (1 - margin), last * (1 + margin), edges[0], edges[grid.length]];
  const moved = Float64Array.from(ends, (w) => w * shift);
  const needed = spectrum.medium === "unknown" ? moved : convert(moved, model.grid.medium, spectrum.medium);
  const [low, high, blue, red] = Array.from(needed, (w) => searchSorted(spectrum.wavelength, w));
  const start = Math.max(Math.min(low - 3, blue - 1), 0);
  const stop = Math.min(Math.max(high + 3, red + 1), spectrum.wavelength.length);
  const inside = convert(spectrum.wavelength.slice(start, stop), spectrum.medium, model.grid.medium);
  const wavelength = inside.map((w) => w / shift);
  if (wavelength.length < 2 || last < wavelength[0] || first > wavelength[wavelength.length - 1]) return null;
  const way = model.preparation.interpolation;
  const direct = resampler(wavelength, grid, way);
  const common = { columns: [start, stop] as const, wavelength, covers: direct.covers };
  const gain = Math.sqrt(Math.max(1, direct.ratio));
  if (degrade === null) return { ...common, degrader: null, resampler: direct, gain };
  const degrader = new Degrader(wavelength, degrade[0], degrade[1]);
  // Nothing is finer than the model's resolution any more, to which the width of its pixels would add.
  const smooth = new Interpolation(degrader.wavelength, grid, 1, way, true);
  // What counts is the noise of lines, which falls less than that of pixels.
  const lowered = (noiseGain(wavelength.length, degrader, smooth) ?? gain) / smoothingOf(model, degrade).excess;
  return { ...common, degrader, resampler: smooth, gain: lowered };
}

/** Return by how much the noise of a pixel is lowered on the whole way; null where nothing is covered. */
function noiseGain(n: number, degrader: Degrader, resampler: Resampler): number | null {
  const even = new Float64Array(n).fill(1);
  const { flux, sigma, valid } = degrader.apply(even, even, null);
  const bad = valid.map((good) => (good ? 0 : 1));
  const known = resampler.apply(flux, sigma, bad).sigma?.filter(Number.isFinite).sort();
  return known?.length ? 1 / known[known.length >> 1] : null;
}

function findFlags(
  model: Model,
  spectrum: Spectrum,
  onGrid: OnGrid,
  coverage: number,
  options: PrepareOptions,
): number {
  const { min_coverage: needed, snr_range: trained } = model.preparation;
  const isSeen = coverage > 0 && coverage >= LEAST_COVERAGE * needed;
  const nBad = onGrid.nCovered - onGrid.nGood;
  const margin = onGrid.sigma === null ? ESTIMATED_SNR_MARGIN : KNOWN_SNR_MARGIN;
  const found: [number, boolean][] = [
    [FLAG.no_coverage, !isSeen],
    [FLAG.partial_coverage, isSeen && (coverage < needed || lacksTooMany(model, onGrid))],
    [FLAG.bad_pixels, nBad > missingLimit(model) * onGrid.nCovered],
    [FLAG.low_snr, trained !== null && onGrid.snr < trained[0] * margin],
    [FLAG.low_resolution, compareResolution(model, spectrum.resolution) < 0],
    [FLAG.medium_unknown, spectrum.medium === "unknown"],
    [FLAG.frame_unknown, options.rv === null && motionUnknown(model, spectrum.frame)],
    [FLAG.not_normalized, offContinuum(onGrid.flux, onGrid.snr)],
  ];
  return found.reduce((bits, [flag, set]) => (set ? bits | flag : bits), 0);
}

/** Return the fraction of the pixels between good ones that may be bad or missing. */
function missingLimit({ preparation: { min_coverage: needed, most_missing: trained } }: Model): number {
  return Math.max(MANY_BAD_PIXELS, trained ?? 1 - needed);
}

/** Whether more pixels between good ones have no good flux than in training. */
function lacksTooMany(model: Model, { nBetween, nGood }: OnGrid): boolean {
  return nBetween - nGood > missingLimit(model) * nBetween;
}

/** Return -1, 0 or 1: lower than the training set's, equal or not known, higher. */
function compareResolution(model: Model, resolution: number | null): number {
  if (resolution === null || model.preparation.resolution === null) return 0;
  const ratio = resolution / model.preparation.resolution;
  return Number(ratio > 1 + RESOLUTION_TOLERANCE) - Number(ratio < 1 - RESOLUTION_TOLERANCE);
}

/** Whether a spectrum in this frame may be shifted against the training spectra by an unknown velocity. */
function motionUnknown(model: Model, frame: Frame): boolean {
  const { frame: trained } = model.preparation;
  if (toleratesMotion(model) || frame === "rest") return false;
  return frame === "unknown" || (trained !== "unknown" && frame !== trained);
}

/** Nobody samples a line that is not resolved with more. */
const MANY_PIXELS = 10;

/** Return the velocity, stated and not removed, that the network was not trained to tolerate; else null. */
function velocityLeft(model: Model, { frame, radialVelocity }: Spectrum, { rv }: PrepareOptions): number | null {
  // Where the Earth's motion counts, the frame is flagged already; stars that were not at rest may have any.
  if (!toleratesMotion(model) || model.preparation.frame !== "rest" || rv !== null) return null;
  // What a header of a spectrum at rest states has been removed already.
  const stated = frame === "rest" ? 0 : radialVelocity;
  return stated === null || tolerates(model, stated) ? null : stated;
}

function commonNotes(model: Model, { medium, resolution, wavelength }: Spectrum): string[] {
  const notes: string[] = [];
  const trained = model.preparation.resolution;
  if (medium === "unknown") notes.push(`medium not known, taken as ${model.grid.medium}`);
  else if (medium !== model.grid.medium)
    notes.push(`wavelengths converted from ${medium} to ${model.grid.medium} (Ciddor 1996)`);
  if (trained !== null && resolution === null) {
    const middle = wavelength.length >> 1;
    const small = MANY_PIXELS * (wavelength[middle] - wavelength[middle - 1]) < wavelength[middle] / trained;
    const hint = small ? "; pixels this small speak of a higher one (resolution)" : "";
    notes.push(`resolving power not known, taken as the model's ${fixed(trained, 0)}${hint}`);
  }
  const compared = compareResolution(model, resolution);
  const how = compared > 0 ? "degraded to" : "below";
  if (trained !== null && resolution !== null && compared)
    notes.push(`resolving power ${fixed(resolution, 0)} ${how} the model's ${fixed(trained, 0)}`);
  return notes;
}

function frameNotes(model: Model, frame: Frame): string[] {
  if (!motionUnknown(model, frame)) return [];
  if (frame === "unknown") return ["frame of the wavelengths not known"];
  const trained = model.preparation.frame === "rest" ? "at rest" : `on ${model.preparation.frame} ones`;
  return [`${frame} wavelengths, the model was trained ${trained}: the star's velocity is needed (rv)`];
}

function velocityNote(model: Model, rv: number): string {
  const isBeyond = toleratesMotion(model) && !tolerates(model, rv);
  return `radial velocity ${fixed(rv, 1)} km/s removed${isBeyond ? `, ${trainedVelocities(model)}` : ""}`;
}

function rowNotes(model: Model, onGrid: OnGrid, coverage: number, flags: number): string[] {
  const notes: string[] = [];
  const { min_coverage: needed, snr_range: trained } = model.preparation;
  const grid = gridText(model.grid);
  if (onGrid.normalized !== 0)
    notes.push(onGrid.normalized > 0 ? "continuum normalised" : "no continuum found to divide by");
  if (!coverage) notes.push(`no good pixel inside ${grid}`);
  else if (flags & (FLAG.no_coverage | FLAG.partial_coverage)) {
    const forAny = flags & FLAG.no_coverage ? `, and for any labels ${rounded(LEAST_COVERAGE * needed)}` : "";
    // Rounded down, what is too little looks so.
    const covers = rounded(Math.floor(1000 * coverage) / 1000);
    if (coverage < needed) notes.push(`covers ${covers} of ${grid}, the model needs ${rounded(needed)}${forAny}`);
  }
  if (flags & FLAG.partial_coverage && lacksTooMany(model, onGrid)) {
    const lacking = percent(1 - onGrid.nGood / onGrid.nBetween, 1);
    notes.push(`${lacking} of the pixels between good ones are missing, ${rounded(missingLimit(model))} may be`);
  }
  if (coverage && Number.isNaN(onGrid.snr)) notes.push("S/N not known: too few good pixels to estimate it from");
  if (flags & FLAG.bad_pixels) notes.push(`${percent(1 - onGrid.nGood / onGrid.nCovered, 1)} of the pixels are bad`);
  if (flags & FLAG.low_snr && trained !== null)
    notes.push(`S/N ${fixed(onGrid.snr, 0)}, trained with ${general(trained[0])}-${general(trained[1])}`);
  if (flags & FLAG.not_normalized) {
    const { level, tilt } = continuumLevel(onGrid.flux);
    const change = level > 0 && Number.isFinite(tilt) ? `, changing by ${percent(tilt / level)}` : "";
    const below = endsBelow(onGrid.flux);
    const ends = level > 0 && below > CONTINUUM_TOLERANCE ? `, ${percent(below / level)} lower at both ends` : "";
    notes.push(`continuum at ${general(level, 3)}${change}${ends}, needed 1`);
  }
  return notes;
}

function rounded(fraction: number): string {
  return `${general(100 * fraction, 4)}%`;
}
